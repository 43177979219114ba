"""The numbers of an evaluation, as values that can be printed, compared and saved."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NOTHING_TO_MEASURE = -1.0
"""What a metric is where the ground truth has no box to measure it on, as in pycocotools. No metric is ever NaN."""


def measured(value: Any) -> Any:
    """A metric, or None where there was nothing to measure."""
    return None if value == NOTHING_TO_MEASURE else value


@dataclass(frozen=True)
class ClassMetrics:
    """How well one class is found. Fractions in [0, 1], or -1 where the ground truth has no box of the class.

    Attributes:
        name: name of the category in the annotation file.
        AP: average precision, mean over IoU 0.50 to 0.95 in steps of 0.05.
        AP50: average precision at IoU 0.50.
        AR100: recall with at most 100 detections of the class in an image, mean over the same IoUs.
        num_boxes: ground-truth boxes of the class, crowds not counted.
    """

    name: str
    AP: float
    AP50: float
    AR100: float
    num_boxes: int


@dataclass(frozen=True)
class CocoMetrics:
    """The twelve numbers of the COCO benchmark, those of each class, and what they were measured on.

    Fractions in [0, 1]; -1 (:data:`NOTHING_TO_MEASURE`) where the ground truth has no box to measure on, such as
    ``AP_small`` without a small box. Small is an area below 32 x 32 pixels, large one above 96 x 96.

    Attributes:
        AP: average precision, mean over classes and IoU 0.50 to 0.95 in steps of 0.05.
        AP50: average precision at IoU 0.50.
        AP75: average precision at IoU 0.75.
        AP_small: AP of small boxes.
        AP_medium: AP of medium boxes.
        AP_large: AP of large boxes.
        AR1: recall with at most 1 detection of each class in an image, mean over classes and IoUs.
        AR10: the same with at most 10.
        AR100: the same with at most 100.
        AR_small: AR100 of small boxes.
        AR_medium: AR100 of medium boxes.
        AR_large: AR100 of large boxes.
        per_class: every category of the ground truth, in the order of their ids.
        images: images that were measured on.
        all_images: images of the ground truth.
        most_boxes: the most boxes of one class in one of these images.
        max_detections: detections of each class in an image that the next two count, above 100; None: not computed.
        AP_max_detections: AP with at most so many.
        AR_max_detections: AR with at most so many.
    """

    AP: float
    AP50: float
    AP75: float
    AP_small: float
    AP_medium: float
    AP_large: float
    AR1: float
    AR10: float
    AR100: float
    AR_small: float
    AR_medium: float
    AR_large: float
    per_class: list[ClassMetrics]
    images: int = 0
    all_images: int = 0
    most_boxes: int = 0
    max_detections: int | None = None
    AP_max_detections: float = NOTHING_TO_MEASURE
    AR_max_detections: float = NOTHING_TO_MEASURE

    @property
    def is_partial(self) -> bool:
        """Whether only a part of the images was looked at."""
        return self.images < self.all_images

    @property
    def numbers(self) -> dict[str, float]:
        """AP and AR of all kinds by name, but those that there was nothing to measure on."""
        names = [field.name for field in fields(self) if field.name.startswith(("AP", "AR"))]
        return {name: getattr(self, name) for name in names if getattr(self, name) != NOTHING_TO_MEASURE}

    def as_dict(self) -> dict[str, Any]:
        """All numbers under their names, ready for JSON; None where there was nothing to measure."""
        return asdict(self, dict_factory=lambda items: {name: measured(value) for name, value in items})

    def save(self, path: Path | str) -> None:
        """Write the metrics as JSON.

        The file is replaced atomically: a reader sees the old or the new one, never a part.

        Args:
            path: the file; its folder must exist.
        """
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        unfinished.replace(path)
