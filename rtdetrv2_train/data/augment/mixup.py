"""MixUp: each image of a batch is blended with the one before it; the second half of DEIM's dense O2O.

With the distribution of DEIM's code (Huang et al., arXiv 2412.04234, 3.1). The boxes of both images count in full.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from rtdetrv2_train.data.augment.checks import checked_probability, checked_range
from rtdetrv2_train.data.images.reading import ImageArray

ALONE = 1.0  # the share of an image in itself


class MixUp:
    """Blend the images of a batch, all by the same share.

    Args:
        share: range of the share of an image in the result; the rest is that of the image before it.
        p: probability, for a batch.

    Raises:
        UserError: if an argument is out of range.
    """

    def __init__(self, share: Sequence[float] = (0.45, 0.55), p: float = 0.5) -> None:
        self.share = checked_range("mixup.share", share, 0.0, 1.0)
        self.p = checked_probability("mixup.p", p)

    def draw(self, random: np.random.Generator) -> float:
        """The share of each image of a batch in what is shown of it; 1 if they are not blended."""
        return random.uniform(*self.share) if random.random() < self.p else ALONE


def blended(images: Sequence[ImageArray], share: float) -> ImageArray:
    """Each image blended with the one before it, the first one with the last.

    Args:
        images: B images of equal size, uint8 ``[H, W, C]``.
        share: of each image in the result.

    Returns:
        uint8 ``[B, H, W, C]``.
    """
    result = np.empty((len(images), *images[0].shape), dtype=np.uint8)
    # As rows of bytes: so the number of channels does not matter.
    rows = [np.ascontiguousarray(image).reshape(len(image), -1) for image in images]
    for number, target in enumerate(result):
        cv2.addWeighted(rows[number], share, rows[number - 1], 1 - share, 0.0, dst=target.reshape(len(target), -1))
    return result
