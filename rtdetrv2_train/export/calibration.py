"""The images that int8 is calibrated on: few, but of every class and every size of object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import ImageArray, UnreadableImageError
from rtdetrv2_train.data.images.resize import evaluation_input
from rtdetrv2_train.inference.detector import Detector

CALIBRATION_IMAGES = 128
_CONSIDERED = 20_000  # images, evenly spread over a larger set
_SIZES = (32**2, 96**2)  # square pixels, between COCO's small, medium and large


def chosen_images(annotations: AnnotationTable, count: int = CALIBRATION_IMAGES) -> list[int]:
    """Images that show all classes in all sizes as evenly as a few can.

    One after the other, the image is taken that adds most to what was seen least: an object of a class and a size
    (COCO's small, medium, large) counts the less, the more of them are there already.

    Args:
        annotations: of the training set.
        count: number of images, at most.

    Returns:
        their numbers, in the order of choosing; the same for the same annotations.
    """
    considered = np.unique(np.linspace(0, len(annotations) - 1, min(len(annotations), _CONSIDERED)).astype(np.int64))
    annotations = annotations.subset(considered)
    num_images = len(annotations)
    sides = annotations.boxes[:, 2:] - annotations.boxes[:, :2]
    size = np.digitize(sides.prod(1), _SIZES)
    image_of_box = np.repeat(np.arange(num_images), np.diff(annotations.offsets))
    shown = np.zeros((num_images, 3 * max(annotations.num_classes, 1)), np.float32)
    shown[image_of_box, 3 * annotations.labels + size] = 1
    seen = np.zeros(shown.shape[1])
    left = np.ones(num_images, dtype=bool)
    chosen: list[int] = []
    while len(chosen) < min(count, num_images):
        gain = np.where(left, shown @ (1 / (1 + seen)), -1)
        chosen.append(int(gain.argmax()))
        left[chosen[-1]] = False
        seen += shown[chosen[-1]]
    return considered[chosen].tolist()


def inputs_of(detector: Detector, images: Iterable[ImageArray]) -> Iterator[NDArray[np.float32]]:
    """The model's inputs of some images, float32 ``[1, C, H, W]`` in [0, 1]."""
    for image in images:
        pixels, _ = evaluation_input(image, detector.image_size, detector.letterbox)
        yield (pixels.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)[None]


def images_of(annotations: AnnotationTable, indices: Sequence[int]) -> Iterator[ImageArray]:
    """The pixels of some images, uint8 ``[H, W, C]``; those that cannot be read are left out."""
    for index in indices:
        try:
            yield annotations.image(index).decode()[0]
        except UnreadableImageError:
            continue
