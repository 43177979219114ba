"""Data loading: images per second on one core, compared with other projects, and the memory of workers.

    python benchmarks/data_path.py path/to/coco_like_set

The dataset has the layout of COCO. Training images are read, strongly augmented (or only flipped) and resized to
640 x 640. The first comparison is with the reference's operators in torchvision. The second is with the loader of
Ultralytics' RT-DETR, if `ultralytics` is installed (in a separate environment, it is no dependency of this project).
DEIM's augmentation, which reads four images for a mosaic, is measured beside the usual one. All take turns. Time is CPU
time, so that other processes matter little. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.mixup import MixUp
from rtdetrv2_train.data.augment.mosaic import Mosaic
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.collate import collate
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import SampleRequest, TrainBatchSampler

SIZE = 640
BATCH_SIZE = 16
Round = Callable[[int], None]


ALWAYS = AugmentationSchedule({}, 1, 1)


def our_dataset(annotations: AnnotationTable, strong: bool, mosaics: float = 0.0) -> DetectionDataset:
    """This project's training samples, of which the share ``mosaics`` are mosaics."""
    transforms: dict[str, Any] = {"mosaic": Mosaic(p=mosaics), "flip": HorizontalFlip()}
    if strong:
        moves = {"photometric": PhotometricDistortion(), "zoom_out": ZoomOut(), "iou_crop": IoUCrop()}
        transforms = moves | transforms
    return DetectionDataset(annotations, TrainingPipeline(transforms), ALWAYS)


def ours(
    annotations: AnnotationTable, strong: bool, mosaics: float = 0.0, mixup: float = 0.0, size: int = SIZE
) -> Round:
    """One epoch of this project: samples and collated batches, of which the share ``mixup`` are blended."""
    dataset = our_dataset(annotations, strong, mosaics)
    blending, random = MixUp(p=mixup), np.random.default_rng(0)

    def epoch(number: int) -> None:
        for first in range(0, len(annotations), BATCH_SIZE):
            share = blending.draw(random)
            indices = range(first, min(first + BATCH_SIZE, len(annotations)))
            collate([dataset[SampleRequest(index, number, size, size, own_share=share)] for index in indices])

    return epoch


class ReferenceCrop(v2.RandomIoUCrop):
    """Torchvision's crop with the reference's probability."""

    def forward(self, *inputs: Any) -> Any:
        """Crop with probability 0.8."""
        return super().forward(*inputs) if torch.rand(1) < 0.8 else inputs


def reference(annotations: AnnotationTable, strong: bool) -> Round:
    """One epoch of the reference's torchvision operators on Pillow images."""
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


def of_ultralytics(annotations: AnnotationTable, strong: bool, folder: Path) -> Round:
    """One epoch of the loader of Ultralytics' RT-DETR.

    Strong augmentation is its default: mosaic of four images, scale, shift, colours, flip.

    Args:
        annotations: the dataset.
        strong: whether to use strong augmentation.
        folder: an empty folder, for a copy of the dataset in YOLO's layout.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.models.rtdetr.val import RTDETRDataset

    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(len(annotations)):
        path = annotations.path(index)
        (folder / "images" / path.name).symlink_to(path.resolve())
        boxes, labels = annotations.targets(index)
        boxes /= [annotations.widths[index], annotations.heights[index]] * 2
        rows = np.column_stack([labels, (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
        np.savetxt(folder / "labels" / f"{path.stem}.txt", rows, fmt=["%d", *["%.6f"] * 4])
    off = {"mosaic": 0, "scale": 0, "translate": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0}
    dataset = RTDETRDataset(
        img_path=str(folder / "images"),
        data={"names": dict(enumerate(annotations.class_names)), "channels": 3},
        imgsz=SIZE,
        augment=True,
        rect=False,
        batch_size=BATCH_SIZE,
        hyp=get_cfg(overrides={"imgsz": SIZE, **({} if strong else off)}),
    )

    def epoch(number: int) -> None:
        for first in range(0, len(dataset), BATCH_SIZE):
            dataset.collate_fn([dataset[index] for index in range(first, min(first + BATCH_SIZE, len(dataset)))])

    return epoch


def worker_memory(annotations: AnnotationTable, workers: int, epochs: int = 20) -> tuple[float, float]:
    """Memory of all workers together after the first epoch, and its growth until the last epoch, in MB.

    Shared memory counts in equal parts for each process (proportional set size, Linux only).
    """
    batches = TrainBatchSampler(len(annotations), BATCH_SIZE // 4, 0, (SIZE, SIZE), None, ALWAYS)
    loader = BatchLoader(our_dataset(annotations, strong=True), batches, workers)
    memory: list[float] = []
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for _ in loader:
            pass
        files = [Path(f"/proc/{worker.pid}/smaps_rollup") for worker in loader._iterator._workers]  # type: ignore
        lines = [line.split() for file in files for line in file.read_text().splitlines()]
        memory.append(sum(int(line[1]) for line in lines if line[0] == "Pss:") / 2**10)
    return memory[0], memory[-1] - memory[0]


def seconds(round_: Round, number: int) -> float:
    """CPU seconds of one round."""
    start = time.process_time()
    round_(number)
    return time.process_time() - start


def report_rates(annotations: AnnotationTable, rounds: int, folder: Path) -> None:
    """Measure all projects in turns and print images per second. ``folder`` must be empty."""
    print("images per second of one core, to 640 x 640: median (least to most) of the rounds")
    for name, strong in (("strong augmentation", True), ("flip only", False)):
        sides = {"this project": ours(annotations, strong), "torchvision v2 on PIL": reference(annotations, strong)}
        if importlib.util.find_spec("ultralytics"):
            copy = folder / name.replace(" ", "_")
            copy.mkdir()
            sides["Ultralytics' loader"] = of_ultralytics(annotations, strong, copy)
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds):
            for side, round_ in sides.items():
                taken[side].append(len(annotations) / seconds(round_, number))
        for side, rates in taken.items():
            ratio = statistics.median(a / b for a, b in zip(taken["this project"], rates, strict=True))
            print(
                f"{name:20} {side:22} {statistics.median(rates):6.1f} ({min(rates):.1f} to {max(rates):.1f})"
                f"   this project is {ratio:.2f} times as fast"
            )


def report_dense(annotations: AnnotationTable, rounds: int) -> None:
    """Measure DEIM's augmentation beside the usual one, in turns."""
    for size in (SIZE, SIZE // 2):
        sides = {
            "usual": ours(annotations, True, size=size),
            "half mosaics, half of the batches blended": ours(annotations, True, 0.5, 0.5, size),
            "mosaics only": ours(annotations, True, 1.0, size=size),
        }
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(rounds):
            for side, round_ in sides.items():
                taken[side].append(len(annotations) / seconds(round_, number))
        for side, rates in taken.items():
            share = statistics.median(a / b for a, b in zip(rates, taken["usual"], strict=True))
            spread = f"{statistics.median(rates):6.1f} ({min(rates):.1f} to {max(rates):.1f})"
            print(f"{size} x {size}, {side:42} {spread}   {share:.2f} of the usual")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    annotations = load_annotations(
        arguments.root / "annotations/instances_train2017.json", arguments.root / "train2017"
    )
    with tempfile.TemporaryDirectory() as folder:
        report_rates(annotations, arguments.rounds, Path(folder))
    report_dense(annotations, arguments.rounds)
    for workers in (1, 4, 8):
        first, grown = worker_memory(annotations, workers)
        print(f"{workers} workers: {first:.0f} MB in all after the first epoch, {grown:+.0f} MB after 19 more")


if __name__ == "__main__":
    main()
