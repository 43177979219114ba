"""Whether an exported model finds what the PyTorch model finds: objects are compared, never rows.

Rows cannot be compared between runtimes, because queries of almost equal score come in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.inference.detector import Detector, Prediction
from rtdetrv2_train.inference.export_card import Precision

_OBJECTS = 10  # of an image, the best


@dataclass(frozen=True)
class Tolerance:
    """How far an object may be from PyTorch's to count as the same, and how many must.

    Attributes:
        pixels: largest difference of a box's edge, of 640 of the image's longer side.
        score: largest difference of the scores.
        share: of the objects that must agree.
    """

    pixels: float
    score: float
    share: float


TOLERANCES = {
    ("float32", "default"): Tolerance(1, 0.01, 0.95),
    ("float32", "discrete"): Tolerance(2, 0.05, 0.8),  # a rounded location flips where it was near the middle
    ("float16", "default"): Tolerance(3, 0.05, 0.9),
    ("float16", "discrete"): Tolerance(5, 0.1, 0.7),
    ("int8", "default"): Tolerance(10, 0.2, 0.6),
    ("int8", "discrete"): Tolerance(10, 0.2, 0.6),
}
"""By precision and sampling."""

AP_TOLERANCES: dict[Precision, float] = {"float32": 0.003, "float16": 0.005, "int8": 0.02}
"""How much AP may be lower than PyTorch's, by precision."""


@dataclass(frozen=True)
class Agreement:
    """Differences of an exported model's objects from PyTorch's.

    Attributes:
        images: number of images compared.
        pixels: float ``[n]``, largest difference of each object's box, as in :class:`Tolerance`; Inf where no object of
            its class was found.
        scores: float ``[n]``, differences of their scores.
    """

    images: int
    pixels: NDArray[np.float64]
    scores: NDArray[np.float64]

    def share(self, tolerance: Tolerance) -> float:
        """The share of objects that agree."""
        same = (self.pixels <= tolerance.pixels) & (self.scores <= tolerance.score)
        return float(same.mean()) if len(same) else 1.0

    def summary(self) -> dict[str, float]:
        """Largest and median differences, for the card."""
        if not len(self.pixels):
            return {"images": self.images, "objects": 0}
        found = np.isfinite(self.pixels)
        return {
            "images": self.images,
            "objects": len(self.pixels),
            "missing": int((~found).sum()),
            "largest_pixels": float(self.pixels[found].max(initial=0)),
            "median_pixels": float(np.median(self.pixels)),
            "largest_score": float(self.scores[found].max(initial=0)),
            "median_score": float(np.median(self.scores)),
        }


def compared(expected: Detector, found: Detector, images: Iterable[ImageArray]) -> Agreement:
    """Compare the objects that two detectors find.

    Args:
        expected: PyTorch's.
        found: the exported one.
        images: uint8 ``[H, W, 3]`` each.
    """
    images = list(images)
    pairs = zip(images, expected.predict(images, 0, _OBJECTS), found.predict(images, 0), strict=True)
    differences = [_differences(one, other, max(image.shape[:2])) for image, one, other in pairs]
    joined = np.concatenate([np.zeros((0, 2)), *differences])
    return Agreement(len(images), joined[:, 0], joined[:, 1])


def _differences(expected: Prediction, found: Prediction, longer_side: int) -> NDArray[np.float64]:
    """Of each object in pixels and score, ``[n, 2]``, from the nearest one of the same class."""
    differences = np.full((len(expected), 2), np.inf)
    for index, (label, score, box) in enumerate(zip(expected.labels, expected.scores, expected.boxes, strict=True)):
        same = found.labels == label
        if not same.any():
            continue
        pixels = np.abs(found.boxes[same] - box).max(1) * (640 / longer_side)
        scores = np.abs(found.scores[same] - score)
        nearest = (pixels + 100 * scores).argmin()
        differences[index] = pixels[nearest], scores[nearest]
    return differences


def made_up_images(count: int, size: tuple[int, int], channels: int = 3) -> Sequence[ImageArray]:
    """Images where there are no real ones: smooth noise of a few colours, uint8 ``[H, W, C]``."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, size[0] // 16, size[1] // 16, channels), dtype=np.uint8)
    return list(coarse.repeat(16, 1).repeat(16, 2))
