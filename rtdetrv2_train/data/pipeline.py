"""From a decoded image and its boxes to a training sample."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images import ImageArray, resize_for_training

# Smaller boxes are dropped, after the augmentations and again after resizing; the tolerance is that of rounding.
MIN_BOX_SIDE = 1.0
_ROUNDING = 1e-6


class TrainingPipeline:
    """Named augmentations in their order, then the resize to the batch's size.

    Args:
        transforms: Albumentations transforms by name; None stands for one that was switched off.
    """

    def __init__(self, transforms: Mapping[str, A.BasicTransform | None]) -> None:
        self.transforms = {name: transform for name, transform in transforms.items() if transform is not None}
        self._composed: dict[tuple[str, ...], A.Compose] = {}

    def __call__(
        self,
        image: ImageArray,
        boxes: NDArray[np.float32],
        labels: NDArray[np.int64],
        size: tuple[int, int],
        active: Sequence[str],
        seed: Sequence[int],
    ) -> tuple[ImageArray, NDArray[np.float32], NDArray[np.int64]]:
        """Augment and resize; equal seeds give equal bits.

        Args:
            image: uint8 ``[H, W, 3]``.
            boxes: ``[n, 4]``, xyxy pixels, within the image and not empty.
            labels: ``[n]``.
            size: (height, width) of the result.
            active: names of the augmentations to use.
            seed: whole numbers from 0, which everything random depends on.

        Returns:
            The image ``[height, width, 3]``, and the remaining boxes as normalised xyxy with their labels.
        """
        compose = self._compose(tuple(name for name in self.transforms if name in active))
        generator = np.random.default_rng(list(seed))
        # Not set_random_seed: that gives every transform the same seed, and so the same draw decides them all.
        compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        height, width = image.shape[:2]
        rows = np.column_stack([boxes / np.array([width, height, width, height], dtype=np.float64), labels])
        result: dict[str, Any] = compose(image=image, bboxes=rows.reshape(-1, 5))
        image, rows = result["image"], result["bboxes"].reshape(-1, result["bboxes"].shape[-1])
        rows = _without_small(rows, image.shape[0], image.shape[1])
        rows = _without_small(rows, *size)
        resized = resize_for_training(image, *size)
        # Albumentations gives up the column of labels where no box is left.
        kept_labels = rows[:, 4] if len(rows) else np.zeros(0)
        return resized, rows[:, :4].astype(np.float32), kept_labels.astype(np.int64)

    def _compose(self, names: tuple[str, ...]) -> A.Compose:
        if names not in self._composed:
            self._composed[names] = A.Compose(
                # The last one does nothing, but without it Compose warns where no other transform moves boxes.
                [*(self.transforms[name] for name in names), A.NoOp(p=1.0)],
                # Boxes are valid throughout and dropped here only; a check after each transform would drop some early.
                bbox_params=A.BboxParams(format="albumentations", label_fields=None, check_each_transform=False),
            )
        return self._composed[names]


def _without_small(rows: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    sides = (rows[:, 2:4] - rows[:, :2]) * (width, height)
    return rows[(sides >= MIN_BOX_SIDE - _ROUNDING).all(axis=1)]
