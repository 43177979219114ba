"""Images per second of one core: this project's data path beside the reference's operators in torchvision.

    python benchmarks/data_path.py path/to/coco_like_set

The set is laid out as COCO is; its training images are read, strongly augmented (or only flipped) and resized to
640 x 640. Both sides take turns, and time is processor time, so that other work on the machine matters little; the
figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from rtdetrv2_train.data.annotations import CocoAnnotations
from rtdetrv2_train.data.dataset import DetectionDataset, collate
from rtdetrv2_train.data.photometric import PhotometricDistortion
from rtdetrv2_train.data.pipeline import TrainingPipeline
from rtdetrv2_train.data.sampler import SampleRequest
from rtdetrv2_train.data.schedule import AugmentationSchedule
from rtdetrv2_train.data.transforms import HorizontalFlip, IoUCrop, ZoomOut

SIZE = 640
BATCH_SIZE = 16
Round = Callable[[int], None]


def ours(annotations: CocoAnnotations, strong: bool) -> Round:
    """One epoch of this project's samples and batches."""
    transforms: dict[str, Any] = {"flip": HorizontalFlip()}
    if strong:
        moves = {"photometric": PhotometricDistortion(), "zoom_out": ZoomOut(), "iou_crop": IoUCrop()}
        transforms = moves | transforms
    dataset = DetectionDataset(annotations, TrainingPipeline(transforms), AugmentationSchedule({}, 1, 1))

    def epoch(number: int) -> None:
        requests = [SampleRequest(index, number, SIZE, SIZE) for index in range(len(annotations))]
        for first in range(0, len(requests), BATCH_SIZE):
            collate([dataset[request] for request in requests[first : first + BATCH_SIZE]])

    return epoch


class ReferenceCrop(v2.RandomIoUCrop):
    """Torchvision's crop with the reference's probability."""

    def forward(self, *inputs: Any) -> Any:
        """Crop eight times out of ten."""
        return super().forward(*inputs) if torch.rand(1) < 0.8 else inputs


def reference(annotations: CocoAnnotations, strong: bool) -> Round:
    """One epoch of the reference's operators on Pillow's images."""
    moves = [v2.RandomPhotometricDistort(p=0.5), v2.RandomZoomOut(fill=0), ReferenceCrop()] if strong else []
    compose = v2.Compose(
        [
            *moves,
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.RandomHorizontalFlip(),
            v2.Resize([SIZE, SIZE]),
            v2.SanitizeBoundingBoxes(min_size=1),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.ConvertBoundingBoxFormat("CXCYWH"),
        ]
    )

    def sample(index: int) -> torch.Tensor:
        with Image.open(annotations.path(index)) as file:
            image = file.convert("RGB")
        boxes, labels = annotations.targets(index)
        shape = (image.height, image.width)
        target = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(boxes.copy()), format="XYXY", canvas_size=shape),
            "labels": torch.from_numpy(labels.copy()),
        }
        pixels, target = compose(image, target)
        target["boxes"] = target["boxes"] / SIZE
        return pixels

    def epoch(number: int) -> None:
        for first in range(0, len(annotations), BATCH_SIZE):
            torch.stack([sample(index) for index in range(first, min(first + BATCH_SIZE, len(annotations)))])

    return epoch


def seconds(round_: Round, number: int) -> float:
    """Processor time of one round."""
    start = time.process_time()
    round_(number)
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    annotations = CocoAnnotations.load(
        arguments.root / "annotations/instances_train2017.json", arguments.root / "train2017"
    )
    print("images per second of one core, to 640 x 640: median (least to most) of the rounds")
    for name, strong in (("strong augmentation", True), ("flip only", False)):
        sides = {"this project": ours(annotations, strong), "torchvision v2 on PIL": reference(annotations, strong)}
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(arguments.rounds):
            for side, round_ in sides.items():
                taken[side].append(len(annotations) / seconds(round_, number))
        for side, rates in taken.items():
            ratio = statistics.median(a / b for a, b in zip(taken["this project"], rates, strict=True))
            print(
                f"{name:20} {side:22} {statistics.median(rates):6.1f} ({min(rates):.1f} to {max(rates):.1f})"
                f"   this project is {ratio:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
