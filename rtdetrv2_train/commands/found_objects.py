"""What a detector finds in the images of a set, for looking at the set's labels; what is found is kept on disk."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.classes import Classes, match_classes, usual_ids
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.array_folder import ArrayFolder, UnusableArraysError, write_arrays
from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.measuring import collect_detections

log = logging.getLogger(__name__)

_BLOCK = 512  # images whose detections are kept in one folder
_LEAST_SCORE = 0.01  # what is below says nothing about labels, and there is a lot of it
_ARRAYS = ("images", "classes", "boxes", "scores")


@dataclass(frozen=True)
class FoundObjects:
    """Labels of a set, and what a detector finds in its images.

    Attributes:
        boxes: labels and detections; classes are those of the detector.
        rows: int64 ``[G]``, for each label in ``boxes`` its row among the ``raw_`` arrays of the table that was given.
    """

    boxes: EvaluatedBoxes
    rows: NDArray[np.int64]


def find_objects(
    detector: Detector, table: AnnotationTable, source: str | Path, folder: Path, max_detections: int = 300
) -> FoundObjects:
    """Detect objects in all images of a set, without augmentation, as evaluation does.

    Detections are kept in a folder, some hundred images at a time. Called again with the same detector and images, for
    instance after an interruption, it computes only what is not there yet. Images that cannot be read have no
    detections, which the log says.

    Args:
        detector: of a run; any other will do, too.
        table: the images, and labels of classes that the detector has at least in part. Others are left out, which the
            log says.
        source: of the detector, for messages and to recognise what is kept.
        folder: of what is kept; made if missing.
        max_detections: pairs of a query and a class for each image, the best. With many of them, one query gives its
            score for several classes.

    Raises:
        UserError: if no class is among the detector's.
    """
    classes = Classes(detector.class_names, detector.category_ids or usual_ids(detector.class_names), str(source))
    reading = replace(table.reading, pixel_range=detector.pixel_range, channels=detector.channels)
    known = replace(table.relabelled(classes), reading=reading)
    rows = _rows_kept(table, classes)
    folder.mkdir(parents=True, exist_ok=True)
    key = {"weights": _fingerprint(detector, source), "max_detections": max_detections}
    found = []
    for start in range(0, len(known), _BLOCK):
        part = known.subset(np.arange(start, min(start + _BLOCK, len(known))))
        found.append(_found_in(detector, part, folder / f"detections_{start:07d}", key, max_detections))
    truth = known.ground_truth()
    together = {name: np.concatenate([block[name] for block in found]) for name in _ARRAYS}
    boxes = EvaluatedBoxes(
        image_ids=truth.image_ids,
        class_names=truth.class_names,
        truth_images=truth.images,
        truth_classes=truth.classes,
        truth_boxes=truth.boxes,
        truth_crowd=truth.crowd,
        found_images=np.searchsorted(truth.image_ids, together["images"]),
        found_classes=together["classes"].astype(np.int64),
        found_boxes=together["boxes"].astype(np.float64),
        found_scores=together["scores"].astype(np.float64),
    )
    return FoundObjects(boxes, rows[: len(truth.images)])


def _rows_kept(table: AnnotationTable, classes: Classes) -> NDArray[np.int64]:
    """Rows of the table whose class the detector has."""
    has = np.array([found is not None for found in match_classes(table.class_names, classes.names)])
    return np.flatnonzero(has[table.raw_labels])


def _found_in(
    detector: Detector, part: AnnotationTable, path: Path, key: Mapping[str, Any], max_detections: int
) -> Mapping[str, NDArray[Any]]:
    """Detections in the images of a block, from the disk where they are there."""
    names = "\n".join([*part.file_names.tolist(), *map(str, part.image_ids.tolist())])
    key = {**key, "images": zlib.crc32(names.encode())}
    if (kept_before := _kept(path, key)) is not None:
        return kept_before
    evaluator = CocoEvaluator(part.ground_truth(), part.category_ids)
    collect_detections(detector, part, evaluator, max_detections)
    found = evaluator.boxes_found()
    kept = found.found_scores >= _LEAST_SCORE
    arrays: dict[str, NDArray[Any]] = {
        "images": found.image_ids[found.found_images[kept]],
        "classes": found.found_classes[kept].astype(np.int32),
        "boxes": found.found_boxes[kept].astype(np.float32),
        "scores": found.found_scores[kept].astype(np.float32),
    }
    write_arrays(path, key, {}, arrays)
    return arrays


def _kept(path: Path, key: Mapping[str, Any]) -> Mapping[str, NDArray[Any]] | None:
    """What is there of an earlier call; None if nothing is, or it is damaged or of another model or other images."""
    try:
        return ArrayFolder(path, key).arrays
    except FileNotFoundError:
        return None
    except (UnusableArraysError, OSError) as error:
        log.info("the detections in '%s' are computed again: %s", path, error)
        return None


def _fingerprint(detector: Detector, source: str | Path) -> list[Any]:
    """What tells weights from others: their source, when it was written, and a checksum of what PyTorch computes."""
    path = Path(source)
    written = path.stat().st_mtime_ns if path.exists() else None
    checksum = 0
    for tensor in detector.model.state_dict().values():
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return [str(path), written, checksum, list(detector.image_size)]
