"""Labels that are likely to be wrong: a run looks at a set, and files are written with which to correct it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rtdetrv2_train.commands.found_objects import find_objects
from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.formats.cvat_writer import write_cvat
from rtdetrv2_train.data.formats.label_studio import write_label_studio
from rtdetrv2_train.data.inspection.findings import Parts
from rtdetrv2_train.evaluation.label_errors.suggestions import find_label_errors
from rtdetrv2_train.inference.loading import load_detector
from rtdetrv2_train.suggestion import Suggestion

FOLDER = "label_errors"
_FOUND_FOLDER = ".objects_found"


class Reviewed(NamedTuple):
    """What a run says of the labels of a set.

    Attributes:
        suggestions: of each part, the most suspicious first.
        files: of each part the files for CVAT and for Label Studio.
    """

    suggestions: Mapping[str, Sequence[Suggestion]]
    files: Mapping[str, Sequence[Path]]


def review_labels(run: str | Path, parts: Parts, output: Path) -> Reviewed:
    """Detect objects in all images, compare them with the labels, and write files for correcting these.

    Args:
        run: folder of a run, or anything else that holds a detector. An interrupted search goes on where it was.
        parts: the tables.
        output: folder of the inspection.

    Raises:
        UserError: if there is no detector, or no class of a part is among its classes.
    """
    detector = load_detector(run)
    suggestions: dict[str, Sequence[Suggestion]] = {}
    files: dict[str, Sequence[Path]] = {}
    for part, table in parts.items():
        found = find_objects(detector, table, run, output / _FOUND_FOLDER / part)
        suggestions[part] = find_label_errors(found.boxes, found.rows)
        folder = output / FOLDER / part
        folder.mkdir(parents=True, exist_ok=True)
        files[part] = (
            write_cvat(table, suggestions[part], folder / "annotations.xml"),
            write_label_studio(table, suggestions[part], folder / "label_studio.json"),
        )
    return Reviewed(suggestions, files)


def as_dicts(reviewed: Reviewed, parts: Parts) -> dict[str, list[dict[str, Any]]]:
    """The suggestions of each part as plain data, with the names of the images' files."""
    content = {}
    for part, suggestions in reviewed.suggestions.items():
        names = dict(zip(parts[part].image_ids.tolist(), parts[part].file_names.tolist(), strict=True))
        content[part] = [{"image": names[each.image_id], **asdict(each)} for each in suggestions]
    return content


def print_reviewed(reviewed: Reviewed) -> None:
    """Print for each part how many labels are suspicious, and where the files are."""
    for part, suggestions in reviewed.suggestions.items():
        likely = sum(each.suspicion >= 0.5 for each in suggestions)
        print_line(f"{'label errors':16} {part}: {likely:,} likely ones, {len(suggestions):,} to look at in all")
        for file in reviewed.files[part]:
            print_line(f"{'correct with':16} {os.path.relpath(file)}")
