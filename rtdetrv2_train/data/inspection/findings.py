"""What a check finds: how bad it is, which images and boxes, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable

Level = Literal["error", "warning", "note"]
Unit = Literal["boxes", "images", "classes", "labels"]
Parts = Mapping[str, AnnotationTable]
"""The tables of a data set by the name of their part, ``train`` and perhaps ``val``, each with its own classes."""

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""The worst first. Errors: training stops, learns something wrong, or is measured wrongly."""

NO_PLACES: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class Item(NamedTuple):
    """One of the things that a finding is about.

    Attributes:
        image: number in the table of the part; -1: of no image that is there.
        boxes: numbers of its annotations that are concerned.
        beside: number of the other image of a pair, in the table of ``Finding.other_part``; -1: none.
        note: what is to be said of it.
    """

    image: int
    boxes: tuple[int, ...]
    beside: int
    note: str


@dataclass(frozen=True)
class Finding:
    """What one check found in one part.

    Attributes:
        check: its name, such as ``doubled_boxes``; names are stable.
        level: how bad it is.
        part: where it was found.
        count: how many boxes, images or classes.
        total: of how many.
        unit: what is counted.
        message: what it is, in a line.
        remedy: what to do, with key or command.
        images: int64 ``[n]``, the image of each item.
        boxes: int64 ``[n]``, the annotation of each item; empty where it is about images or classes.
        beside_boxes: int64 ``[n]``, another annotation of the same image; empty where there is none.
        beside_images: int64 ``[n]``, another image; empty where there is none.
        other_part: of the other images.
        notes: what is to be said of each item; empty where there is nothing.
        mended_by_fix: whether ``fix=true`` mends it.
    """

    check: str
    level: Level
    part: str
    count: int
    total: int
    unit: Unit
    message: str
    remedy: str
    images: NDArray[np.int64] = field(default_factory=NO_PLACES.copy)
    boxes: NDArray[np.int64] = field(default_factory=NO_PLACES.copy)
    beside_boxes: NDArray[np.int64] = field(default_factory=NO_PLACES.copy)
    beside_images: NDArray[np.int64] = field(default_factory=NO_PLACES.copy)
    other_part: str = ""
    notes: Sequence[str] = ()
    mended_by_fix: bool = False

    def items(self, most: int) -> Iterator[Item]:
        """Some of the items, spread over all of them."""
        length = max(len(self.images), len(self.notes))
        for place in np.unique(np.linspace(0, length - 1, min(most, length)).astype(np.int64)).tolist():
            lists = [each for each in (self.boxes, self.beside_boxes) if len(each)]
            yield Item(
                int(self.images[place]) if len(self.images) else -1,
                tuple(int(each[place]) for each in lists),
                int(self.beside_images[place]) if len(self.beside_images) else -1,
                self.notes[place] if self.notes else "",
            )


def by_level(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first, and of equal ones those of more."""
    return sorted(findings, key=lambda each: (LEVELS.index(each.level), -each.count / max(each.total, 1)))


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``, ``1 box``, ``2 boxes``, ``1 class``."""
    plural = "es" if noun.endswith(("x", "s")) else "s"
    return f"{count:,} {noun}{plural * (count != 1)}"


def quoted_names(names: Sequence[str], most: int = 5) -> str:
    """Names in quotes, not too many, for messages."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more
