"""Backends that compute COCO's precision and recall: pycocotools, the reference, and faster ones with equal numbers.

All get the same ranks in place of ids, so that they break ties between equal scores alike. Only here do arrays become
the objects that these packages read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.evaluation.metrics import NOTHING_TO_MEASURE
from rtdetrv2_train.ground_truth import GroundTruth

AUTO = "auto"
BENCHMARK_LIMIT = 100
"""Detections of a class in an image that the benchmark counts, the best."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall. T IoUs, R recalls, K classes, A areas (all, small, medium, large), M detection limits.

    Attributes:
        summary: the twelve numbers, in pycocotools' order.
        precision: ``[T, R, K, A, M]``, at recalls from 0 to 1 in steps of 0.01; -1 without ground truth.
        recall: ``[T, K, A, M]``, the highest one; -1 without ground truth.
        at_max_detections: AP and AR with more detections than the benchmark counts; -1 if not computed.
    """

    summary: list[float]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    at_max_detections: tuple[float, float] = (NOTHING_TO_MEASURE, NOTHING_TO_MEASURE)


class Backend(Protocol):
    """Counts."""

    def __call__(
        self, truth: GroundTruth, found_D7: NDArray[np.float64], max_detections: int | None = None
    ) -> PrecisionRecall:
        """Precision and recall of detections."""


def pycocotools(
    truth: GroundTruth, found_D7: NDArray[np.float64], max_detections: int | None = None
) -> PrecisionRecall:
    """Compute with pycocotools, the reference; takes minutes for COCO's validation set.

    Args:
        truth: the ground truth.
        found_D7: image, left, top, width, height, score, category of each detection; images and categories are ranks
            from 1 in the order of the ground truth.
        max_detections: a further limit of detections of a class in an image, above the benchmark's.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # Not loadRes: it refuses an evaluation without detections.
    found = [
        {
            "id": number,
            "image_id": int(image),
            "category_id": int(category),
            "bbox": [left, top, width, height],
            "area": width * height,
            "score": score,
            "iscrowd": 0,
        }
        for number, (image, left, top, width, height, score, category) in enumerate(found_D7.tolist(), start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress, and the table that it also returns
        dataset = _coco_dataset(truth)
        contents = []
        for annotations in (dataset["annotations"], found):
            content = COCO()
            content.dataset = {**dataset, "annotations": annotations}
            content.createIndex()
            contents.append(content)
        return _counted(COCOeval(*contents, "bbox"), max_detections)


def ultrafast(truth: GroundTruth, found_D7: NDArray[np.float64], max_detections: int | None = None) -> PrecisionRecall:
    """Compute with ultrafast-pycocotools, in seconds; arguments as for :func:`pycocotools`."""
    from ultrafast_pycocotools import COCO, COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        content = COCO(_coco_dataset(truth), verbose=False)
        return _counted(COCOeval(content, content.loadRes(found_D7), "bbox"), max_detections)


BACKENDS: dict[str, tuple[str, Backend]] = {
    "ultrafast": ("ultrafast_pycocotools", ultrafast),
    "pycocotools": ("pycocotools", pycocotools),
}
"""Module and function of each backend, the fastest first."""


def backend_named(name: str = AUTO) -> Backend:
    """The backend of a name.

    Args:
        name: one of :data:`BACKENDS`, or ``auto`` for the fastest that is installed.

    Raises:
        UserError: if the name is unknown, or the backend is not installed.
    """
    if name == AUTO:
        return next(function for module, function in BACKENDS.values() if importlib.util.find_spec(module))
    if name not in BACKENDS:
        options = [AUTO, *BACKENDS]
        raise UserError(f"there is no evaluation.backend={name}: {nearest(name, options)}use {', '.join(options)}")
    module, function = BACKENDS[name]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"evaluation.backend={name} is not installed: pip install {module.replace('_', '-')}, or use {AUTO}"
        )
    return function


def mean_of_measured(values: NDArray[np.float64]) -> float:
    """Mean of the values that there was something to measure on."""
    there = values[values > -1]
    return float(there.mean()) if there.size else NOTHING_TO_MEASURE


def _counted(evaluation: Any, max_detections: int | None) -> PrecisionRecall:
    limits = [1, 10, BENCHMARK_LIMIT]
    evaluation.params.maxDets = [*limits, max_detections] if max_detections else limits
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    counted = evaluation.eval
    summary = [float(number) for number in evaluation.stats]
    precision, recall = np.asarray(counted["precision"]), np.asarray(counted["recall"])
    benchmark = PrecisionRecall(summary, precision[..., : len(limits)], recall[..., : len(limits)])
    if not max_detections:
        return benchmark
    at_max = (mean_of_measured(precision[:, :, :, 0, -1]), mean_of_measured(recall[:, :, 0, -1]))
    return replace(benchmark, at_max_detections=at_max)


def _coco_dataset(truth: GroundTruth) -> dict[str, Any]:
    """The ground truth as the objects of a COCO file, with ranks from 1 in place of all ids."""
    columns = (truth.images + 1, truth.classes + 1, truth.boxes, truth.areas, truth.crowd)
    return {
        "images": [{"id": rank} for rank in range(1, len(truth.image_ids) + 1)],
        "categories": [{"id": rank, "name": name} for rank, name in enumerate(truth.class_names, start=1)],
        "annotations": [
            {"id": rank, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
            for rank, (image, category, box, area, crowd) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True), start=1
            )
        ],
    }
