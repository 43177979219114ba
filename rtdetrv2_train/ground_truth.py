"""Ground truth of a whole data set, as flat arrays. Does not import PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def of_images(self, image_ids: NDArray[np.int64]) -> GroundTruth:
        """The ground truth of some of the images, by their ids."""
        chosen = np.isin(self.image_ids, image_ids)
        kept = chosen[self.images]
        return replace(
            self,
            image_ids=self.image_ids[chosen],
            images=(np.cumsum(chosen) - 1)[self.images[kept]],
            classes=self.classes[kept],
            boxes=self.boxes[kept],
            areas=self.areas[kept],
            crowd=self.crowd[kept],
        )

    @property
    def most_boxes(self) -> int:
        """The most boxes of one class in one image, crowd regions not counted."""
        groups = self.images[~self.crowd] * len(self.category_ids) + self.classes[~self.crowd]
        return int(np.unique(groups, return_counts=True)[1].max(initial=0))
