"""Ground truth of a whole data set, as flat arrays. Does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GroundTruth:
    """What the detections of a data set are evaluated against: I images, K classes, G annotations.

    Attributes:
        image_ids: int64 ``[I]``, ids of the annotation file, ascending.
        category_ids: K ids of the annotation file, ascending.
        class_names: K names.
        images: int64 ``[G]``, indices into ``image_ids``.
        classes: int64 ``[G]``, indices into ``category_ids``.
        boxes: float64 ``[G, 4]``, xywh in pixels.
        areas: float64 ``[G]``, square pixels.
        crowd: bool ``[G]``, whether an annotation is a crowd region.

    Raises:
        ValueError: if ids are not ascending, or lengths do not fit together.
    """

    image_ids: NDArray[np.int64]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    images: NDArray[np.int64]
    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def __post_init__(self) -> None:
        for ids in (self.image_ids, np.array(self.category_ids, dtype=np.int64)):
            if (ids[1:] <= ids[:-1]).any():
                raise ValueError(f"ids of the ground truth must be ascending, not {ids[:5].tolist()}...")
        lengths = {len(values) for values in (self.images, self.classes, self.boxes, self.areas, self.crowd)}
        if len(lengths) > 1 or len(self.category_ids) != len(self.class_names):
            raise ValueError(f"the ground truth does not fit together: {lengths} annotations")
