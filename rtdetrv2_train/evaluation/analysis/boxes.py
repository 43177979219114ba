"""Ground truth and detections of a whole data set, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EvaluatedBoxes:
    """I images, K classes, G boxes of the ground truth, D detections. Boxes are left, top, width, height in pixels.

    Attributes:
        image_ids: int64 ``[I]``, ascending ids of the annotation file.
        class_names: K names, in the order of the category ids.
        truth_images: int64 ``[G]``, indices into ``image_ids``.
        truth_classes: int64 ``[G]``, indices into ``class_names``.
        truth_boxes: float64 ``[G, 4]``.
        truth_crowd: bool ``[G]``, whether a box encloses many objects, of which none must be found.
        found_images: int64 ``[D]``, indices into ``image_ids``.
        found_classes: int64 ``[D]``, indices into ``class_names``.
        found_boxes: float64 ``[D, 4]``.
        found_scores: float64 ``[D]``.
    """

    image_ids: NDArray[np.int64]
    class_names: tuple[str, ...]
    truth_images: NDArray[np.int64]
    truth_classes: NDArray[np.int64]
    truth_boxes: NDArray[np.float64]
    truth_crowd: NDArray[np.bool_]
    found_images: NDArray[np.int64]
    found_classes: NDArray[np.int64]
    found_boxes: NDArray[np.float64]
    found_scores: NDArray[np.float64]
