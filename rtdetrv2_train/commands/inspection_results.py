"""What an inspection leaves: the page, the findings as JSON, new annotations, and some lines on the screen."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rtdetrv2_train.commands.label_errors import Reviewed, as_dicts, print_reviewed
from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.formats.writers import coco_content
from rtdetrv2_train.data.inspection.contents import class_contents, part_contents
from rtdetrv2_train.data.inspection.findings import LEVELS, Finding, Parts
from rtdetrv2_train.data.inspection.fixing import Mended, mended
from rtdetrv2_train.data.inspection.inspection import Inspected
from rtdetrv2_train.data.inspection.recommendations import Recommendation
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.files import atomic_save, save_json
from rtdetrv2_train.report.inspection_page import InspectedSet, write_inspection_page

PAGE_FILE, JSON_FILE, FIXED_FOLDER = "inspect.html", "inspect.json", "fixed"

_VERSION = 1  # of the JSON file, to be raised when a key changes its meaning
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_ITEMS_LISTED = 1000
_OF_READING = ("model", "data.", "augment", "recipe")  # keys that training is to be given, too
_REPLACED = ("data.train", "data.val", "data.root", "data.format")  # by the new annotations


class Fixed(NamedTuple):
    """Annotations that were written.

    Attributes:
        files: of each part.
        parts: what was mended.
    """

    files: Mapping[str, Path]
    parts: Mapping[str, Mended]


def write_fixed(output: Path, found: Inspected) -> Fixed | None:
    """Write annotations without what is wrong, to a folder that is new.

    Args:
        output: folder of the inspection.
        found: what is wrong.

    Returns:
        None where there is nothing to mend, and nothing is written.
    """
    names = (f"{FIXED_FOLDER}{f'_{number}' * (number > 1)}" for number in range(1, 1000))
    folder = next(output / name for name in names if not (output / name).exists())
    parts = mended(found.parts, found.looks, found.findings)
    if not any(each.changes for each in parts.values()):
        print_line("nothing can safely be mended, so that no new annotations are written")
        return None
    files = {}
    for part, of_part in parts.items():
        content = msgspec.json.encode(coco_content(of_part.table, of_part.table.file_names.tolist()))

        def write(temporary: Path, content: bytes = content) -> None:
            temporary.write_bytes(content)

        files[part] = atomic_save(folder / f"{part}.json", write)
    return Fixed(files, parts)


def write_results(
    output: Path,
    data: CocoDataModule,
    found: Inspected,
    advice: Sequence[Recommendation],
    fixed: Fixed | None,
    reviewed: Reviewed | None,
) -> None:
    """Write the page, and the findings as JSON.

    Args:
        output: folder of the inspection.
        data: the set.
        found: what is wrong with it.
        advice: what to begin with.
        fixed: what was mended; None where nothing was to be.
        reviewed: what a run says of the labels; None where none was asked.
    """
    contents = {part: part_contents(table, data.image_size) for part, table in found.parts.items()}
    classes = class_contents(found.parts, data.image_size)
    content: dict[str, Any] = {
        "version": _VERSION,
        "root": str(data.root),
        "image_size": list(data.image_size),
        "counts": {level: sum(each.level == level for each in found.findings) for level in LEVELS},
        "parts": contents,
        "classes": classes,
        "findings": [_as_dict(each, found.parts) for each in found.findings],
        "recommendations": [asdict(each) for each in advice],
        "label_errors": None if reviewed is None else as_dicts(reviewed, found.parts),
        "fixed": None if fixed is None else _fixed_as_dict(fixed),
    }
    facts = {
        "data": str(data.root),
        **{part: f"{table.annotation_file}, images in {table.image_folder}" for part, table in found.parts.items()},
        "input": f"{data.image_size[0]} x {data.image_size[1]} pixels",
    }
    title = data.root.resolve().name
    suggestions = {} if reviewed is None else reviewed.suggestions
    subject = InspectedSet(
        title, found.parts, contents, classes, found.findings, advice, data.image_size, facts, suggestions
    )
    write_inspection_page(output / PAGE_FILE, subject)
    save_json(output / JSON_FILE, content)


def _as_dict(finding: Finding, parts: Parts) -> dict[str, Any]:
    """A finding as plain data, with at most so many of its items."""
    table = parts[finding.part]
    items = []
    for item in finding.items(_ITEMS_LISTED):
        entry: dict[str, Any] = {}
        if item.image >= 0:
            entry["image"] = str(table.file_names[item.image])
        if item.boxes:
            entry["boxes"] = [table.raw_boxes[box].tolist() for box in item.boxes]
            entry["classes"] = [table.class_names[table.raw_labels[box]] for box in item.boxes]
        if item.beside >= 0:
            entry["other_image"] = str(parts[finding.other_part].file_names[item.beside])
            entry["other_part"] = finding.other_part
        if item.note:
            entry["note"] = item.note
        items.append(entry)
    names = ("check", "level", "part", "count", "total", "unit", "message", "remedy", "mended_by_fix")
    return {**{name: getattr(finding, name) for name in names}, "items": items}


def _fixed_as_dict(fixed: Fixed) -> dict[str, Any]:
    return {
        part: {"annotations": str(fixed.files[part]), "changes": dict(of_part.changes)}
        for part, of_part in fixed.parts.items()
    }


def print_results(
    output: Path,
    data: CocoDataModule,
    found: Inspected,
    advice: Sequence[Recommendation],
    fixed: Fixed | None,
    reviewed: Reviewed | None,
    overrides: Sequence[str],
) -> None:
    """Print what is wrong in a line each, what to begin with, and where everything is.

    Args:
        output: folder of the inspection.
        data: the set.
        found: what is wrong with it.
        advice: what to begin with.
        fixed: what was mended; None where nothing was to be.
        reviewed: what a run says of the labels; None where none was asked.
        overrides: of the command line.
    """
    for part, table in found.parts.items():
        print_line(f"{part:16} {len(table):,} images, {len(table.boxes):,} boxes of {table.num_classes} classes")
    for finding in found.findings:
        line = f"{finding.level:8} {finding.part:7} {finding.check}: {finding.message}"
        print_line(line, _STYLES[finding.level])
    if not found.findings:
        print_line("nothing looks wrong")
    for number, each in enumerate(advice):
        print_line(f"{'' if number else 'begin with':16} {each.override or each.key}: {each.reason}")
    if fixed is not None:
        for part, of_part in fixed.parts.items():
            changes = "; ".join(f"{what}: {count}" for what, count in of_part.changes.items()) or "nothing to mend"
            print_line(f"{'fixed':16} {os.path.relpath(fixed.files[part])}: {changes}")
        print_line(f"{'train with':16} {_command(data, found.parts, fixed, overrides)}")
    elif any(each.mended_by_fix for each in found.findings):
        print_line(f"{'mend':16} the same with fix=true writes annotations without what can safely be mended")
    if reviewed is not None:
        print_reviewed(reviewed)
    print_line(f"{'page':16} {os.path.relpath(output / PAGE_FILE)}")
    print_line(f"{'findings':16} {os.path.relpath(output / JSON_FILE)}")


def _command(data: CocoDataModule, parts: Parts, fixed: Fixed, overrides: Sequence[str]) -> str:
    """How to train with the new annotations."""
    kept = [override for override in overrides if override.startswith(_OF_READING)]
    settings = [override for override in kept if not override.startswith(_REPLACED)]
    settings.append(f"data.root={data.root}")
    for part, file in fixed.files.items():
        settings.append(f"data.{part}.images={parts[part].image_folder.absolute()}")
        settings.append(f"data.{part}.annotations={file.absolute()}")
    return " ".join(["rtdetrv2 train", *map(shlex.quote, settings)])
