"""The ids of an annotation file for images and classes of a prediction: by path, and by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from rtdetrv2_train.checkpoints.model_folder import names_or_none
from rtdetrv2_train.classes import Classes, match_classes, usual_ids
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.detector import Detector

log = logging.getLogger(__name__)


def category_ids_of(detector: Detector, listed: Classes | None) -> tuple[int | None, ...]:
    """The category id of each class index.

    Args:
        detector: whose classes they are.
        listed: the classes of an annotation file, whose ids count; None for those that the detector knows.

    Returns:
        The ids; None for a class that the annotation file lacks, which the log says.

    Raises:
        UserError: if it has none of them.
    """
    names = detector.class_names
    if listed is None or not listed.names:
        return detector.category_ids or usual_ids(names)
    if names_or_none(names) is None and len(names) == len(listed.names):
        return listed.ids
    matched = match_classes(names, listed.names)
    own = Classes(names, usual_ids(names), "the model")
    unknown = [label for label, found in enumerate(matched) if found is None]
    if len(unknown) == len(names):
        raise UserError(
            f"'{listed.source}' and the model have no class in common: {listed.listed(range(len(listed.names)))} here, "
            f"{own.listed(unknown)} there; if the model's names are wrong, give class_names="
        )
    if unknown:
        left_out = own.listed(unknown)
        log.warning("'%s' lacks classes of the model; COCO results are without them: %s", listed.source, left_out)
    return tuple(None if found is None else listed.ids[found] for found in matched)


def image_ids_of(listed: AnnotationTable, files: Sequence[tuple[Path, str]]) -> dict[str, int]:
    """The id of each image, by its name in the predictions.

    An image is the entry whose path is the longest that its own ends with.

    Args:
        listed: the annotations.
        files: paths of images, and their names.

    Raises:
        UserError: if an image is not listed, or it is not clear as what.
    """
    by_path = dict(zip(listed.file_names.tolist(), listed.image_ids.tolist(), strict=True))
    ids: dict[str, int] = {}
    owners: dict[int, str] = {}
    for path, name in files:
        parts = path.absolute().parts
        endings = ("/".join(parts[first:]) for first in range(1, len(parts)))
        entry = next((ending for ending in endings if ending in by_path), None)
        if entry is None:
            raise UserError(f"annotations= does not list the image '{name}': give the file that belongs to the images")
        ids[name] = by_path[entry]
        if (other := owners.setdefault(ids[name], name)) != name:
            raise UserError(
                f"the images '{other}' and '{name}' are both '{entry}' of '{listed.annotation_file}': list them with "
                "their folders there, or predict on one of them"
            )
    return ids
