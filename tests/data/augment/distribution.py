"""What the reference's augmentation does to images and boxes, in figures that another one can be compared by.

The figures of photographs take torchvision a minute, so they are kept in ``tests/reference/augmentation.json``. Made by

    python -m tests.data.augment.distribution path/to/tiny_coco
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from rtdetrv2_train.data.images.decode import read_image
from rtdetrv2_train.data.index import load_annotations

FIGURES_FILE = Path(__file__).resolve().parents[2] / "reference/augmentation.json"
Labelled = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]


class ReferenceIoUCrop(v2.RandomIoUCrop):
    """Torchvision's crop with the reference's probability."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) if torch.rand(1) < 0.8 else inputs


def reference_figures(samples: list[Labelled], size: tuple[int, int], count: int) -> NDArray[np.float64]:
    """Figures ``[count, 9]`` of as many draws of the reference's operators."""
    compose = v2.Compose(
        [
            v2.RandomPhotometricDistort(p=0.5),
            v2.RandomZoomOut(fill=0),
            ReferenceIoUCrop(),
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.RandomHorizontalFlip(),
            v2.Resize(size),
            v2.SanitizeBoundingBoxes(min_size=1),
        ]
    )
    torch.manual_seed(0)
    figures = []
    for number in range(count):
        image, boxes, labels = samples[number % len(samples)]
        target = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=image.shape[:2]),
            "labels": torch.from_numpy(labels),
        }
        drawn, target = compose(Image.fromarray(image), target)
        figures.append(described(np.asarray(drawn), target["boxes"].numpy() / [size[1], size[0], size[1], size[0]]))
    return np.array(figures)


def described(image: NDArray[np.uint8], boxes: NDArray[np.floating[Any]]) -> list[float]:
    """What photometric distortion, zoom-out, crop and flip each change."""
    pixels = image.astype(float)
    sides = boxes[:, 2:] - boxes[:, :2]
    return [
        len(boxes),
        sides.prod(axis=1).sum(),
        np.log(sides[:, 0] / sides[:, 1]).sum(),
        boxes[:, 0].sum(),
        boxes[:, 3].sum(),
        pixels.mean(),
        pixels.std(),
        pixels.std(axis=2).mean(),
        (pixels.max(axis=2) == 0).mean(),
    ]


def spread(figures: NDArray[np.float64], num_samples: int) -> NDArray[np.float64]:
    """Variance of figures ``[count, 9]`` among the draws of one sample; samples differ by more than that."""
    variance: NDArray[np.float64] = figures.reshape(-1, num_samples, 9).var(axis=0, ddof=1).mean(axis=0)
    return variance


def photographs(folder: Path) -> list[Labelled]:
    """The training images of a set that is laid out as COCO is, shrunk to a fifth to save time."""
    annotations = load_annotations(folder / "annotations/instances_train2017.json", folder / "train2017")
    samples = []
    for index in range(len(annotations)):
        image = read_image(annotations.path(index))[::5, ::5].copy()
        boxes, labels = annotations.targets(index)
        limits = np.array([image.shape[1], image.shape[0]] * 2)
        samples.append((image, (boxes / 5).clip(0, limits).astype(np.float32), labels))
    return samples


def main() -> None:
    """Compute the figures of the photographs anew."""
    size, draws = (96, 96), 2000
    samples = photographs(Path(sys.argv[1]))
    figures = reference_figures(samples, size, draws)
    content = {
        "size": size,
        "draws": draws,
        "means": figures.mean(axis=0).tolist(),
        "variances": spread(figures, len(samples)).tolist(),
    }
    FIGURES_FILE.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
