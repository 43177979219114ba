"""What a format is, and what a part of a data set is: the terms that all formats share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.errors import UserError

Part = Literal["train", "val", "test", ""]

_PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


_MOST_NAMED = 4


@dataclass(frozen=True)
class Source:
    """One part of a data set as it lies on disk; nothing has been read yet.

    Attributes:
        format: name of its format.
        annotations: the file or folder that the labels are in.
        images: folder that the names of images are relative to.
        part: what the set calls it; empty where it has no parts.
        listing: file or folder that says which images belong to this part; None: all that are annotated.
        classes: file with the names of the classes; None where the labels name them.
        may_lack_images: whether images that are missing or cannot be read are left out, with their boxes, where the
            labels do not give their sizes; else they are an error.
    """

    format: str
    annotations: Path
    images: Path
    part: Part = ""
    listing: Path | None = None
    classes: Path | None = None
    may_lack_images: bool = False


@dataclass(frozen=True)
class Format:
    """How annotations can lie on disk.

    Attributes:
        name: in the configuration, such as ``voc``.
        title: in messages, such as Pascal VOC.
        find: the parts at a path, a folder or a file; empty where there is nothing of this format. Looks at names and
            at the beginning of files, and is fast also where there are a million files.
        read: the table of a part. Raises `UserError` with file, line and the way out.
        state: what the files of a part are known by, for the index: plain data that changes with any of them.
    """

    name: str
    title: str
    find: Callable[[Path], list[Source]]
    read: Callable[[Source, Exif], AnnotationTable]
    state: Callable[[Source], dict[str, Any]]


def one_for_each_part(path: Path, sources: Iterable[Source], kind: str) -> list[Source]:
    """The sources of a set, of which no two may be for the same part.

    What names no part counts only where nothing else does, as a file of everything beside those of the parts.

    Args:
        path: of the set.
        sources: all that were found there.
        kind: what their files are called in the message.

    Raises:
        UserError: if several are for one part.
    """
    found: dict[Part, list[Source]] = {}
    for source in sources:
        found.setdefault(source.part, []).append(source)
    if found.keys() - {""}:
        found.pop("", None)
    for part, alike in found.items():
        if len(alike) > 1:
            names = ", ".join(f"'{source.annotations.relative_to(path)}'" for source in alike[:_MOST_NAMED])
            key = f"data.{part or 'train'}"
            raise UserError(
                f"'{path}' has {len(alike)} {kind}{f' for {part}' * bool(part)}: {names}; choose with "
                f"{key}.annotations= and {key}.images="
            )
    return [source for alike in found.values() for source in alike]


def state_of_files(paths: Iterable[Path]) -> dict[str, Any]:
    """Sizes and times of a few files, as a state for the index."""
    states = [path.stat() for path in paths]
    return {"bytes": [state.st_size for state in states], "modified": [state.st_mtime_ns for state in states]}


def part_of(name: str) -> Part:
    """The part that the name of a file or folder stands for, such as ``val`` for ``instances_val2017.json``.

    The first word that names a part counts, as in ``test-dev``. Empty where none does.
    """
    words = re.findall(r"[a-z]+", re.sub(r"\.\w+$", "", name).lower())
    return next((_PARTS[word] for word in words if word in _PARTS), "")
