"""The results of `benchmarks.gpu`, as JSON and as a page, written again after each measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtdetrv2_train.files import save_json, save_text

JSON_FILE, PAGE_FILE = "gpu.json", "gpu.md"
_SHORT_LIST = 60
State = Literal["measured", "failed", "skipped", "left out"]

_DRY = "**A dry run on a CPU at tiny sizes: it shows that everything works, and no figure means anything.**"


@dataclass(frozen=True)
class Record:
    """The result of one measurement.

    Attributes:
        part: that it belongs to.
        name: of the measurement.
        state: ``failed`` with an exception, ``skipped`` where it is not possible, ``left out`` for want of time.
        figures: what was measured.
        at_most: bounds of some figures.
        seconds: that it took.
        reason: why there are no figures.
    """

    part: str
    name: str
    state: State
    figures: dict[str, Any] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    @property
    def beyond(self) -> list[str]:
        """The bounded figures that are missing, not a number or too large."""
        return [name for name, most in self.at_most.items() if not _number(self.figures.get(name)) <= most]

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to look at it."""
        return self.state == "failed" or (self.state == "measured" and bool(self.beyond))

    def text(self, between: str = "; ") -> str:
        """The result in words, in a line unless lists are to have other separators than semicolons."""
        if self.state != "measured":
            return f"{self.state}: {self.reason}"
        text = shown(self.figures, between)
        bounds = ", ".join(f"{name} at most {most:g}" for name, most in self.at_most.items())
        if not bounds:
            return text
        return f"{text} ({bounds}: {'**NOT SO**, ' + ', '.join(self.beyond) if self.beyond else 'yes'})"


class Results:
    """All results so far, on the disk as soon as they are added.

    Args:
        folder: where the two files go.
        dry_run: whether no figure means anything.

    Raises:
        FileExistsError: if the folder has results already.
    """

    def __init__(self, folder: Path, dry_run: bool) -> None:
        self.folder, self.dry_run = folder, dry_run
        self.records: list[Record] = []
        for name in (JSON_FILE, PAGE_FILE):
            if (folder / name).exists():
                raise FileExistsError(f"'{folder / name}' is there already: give another folder, --results FOLDER")

    def add(self, record: Record) -> None:
        """Keep a result."""
        self.records.append(record)
        content = [asdict(it) | {"beyond": it.beyond} for it in self.records]
        save_json(self.folder / JSON_FILE, {"dry_run": self.dry_run, "results": content})
        save_text(self.folder / PAGE_FILE, "\n".join(self.page()) + "\n")

    def page(self) -> list[str]:
        """All results as lines of Markdown: a table for each part."""
        lines = ["# On a GPU", ""] + [_DRY, ""] * self.dry_run
        for part in dict.fromkeys(record.part for record in self.records):
            lines += [f"## {part}", "", "| | | seconds |", "|---|---|---|"]
            for record in self.records:
                if record.part == part:
                    lines.append(f"| {record.name} | {_cell(record.text('<br>'))} | {record.seconds:.1f} |")
            lines.append("")
        return lines


def shown(figures: Mapping[str, Any], between: str = "; ") -> str:
    """Figures as text: ``name value, name value``; lists and figures within figures after their name and a colon.

    Args:
        figures: by name.
        between: what separates those, and the entries of a list that is not short.
    """
    plain = [f"{name} {_value(value)}" for name, value in figures.items() if not _has_parts(value)]
    groups = [", ".join(plain)] * bool(plain)
    for name, value in figures.items():
        if isinstance(value, Mapping):
            groups.append(f"{name}: {shown(value, between)}")
        elif _has_parts(value):
            groups.append(f"{name}: {_joined([_value(entry) for entry in value], between)}")
    return between.join(groups)


def _joined(entries: list[str], between: str) -> str:
    line = ", ".join(entries)
    return (line if len(line) < _SHORT_LIST else between.join(entries)) or "none"


def _has_parts(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
