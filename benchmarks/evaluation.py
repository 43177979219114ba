"""Time and memory of COCO metrics for random detections in 5,000 images: ``python benchmarks/evaluation.py``.

Each backend computes the same metrics in its own process. Backends take turns, and medians over the rounds count. Time
is from collected detections to all metrics. Memory is the peak of the process, including PyTorch and the detections.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdetrv2_train.evaluation.backends import BACKENDS
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.ground_truth import GroundTruth
from rtdetrv2_train.types import Detections

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 80
DETECTIONS = 292  # per image: 1.46 million in 5,000 images, about what a model of 300 queries gives
BOXES = 7  # mean per image


def random_dataset(num_images: int, seed: int = 0) -> tuple[GroundTruth, Detections]:
    """Random ground truth and detections. Half of the detections are shifted ground truth, half are false positives."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(num_images), rng.poisson(BOXES, num_images))
    corners, sizes = rng.uniform(0, 500, (len(images), 2)), np.exp(rng.normal(4, 0.9, (len(images), 2)))
    classes = rng.integers(0, CLASSES, len(images))
    truth = GroundTruth(
        image_ids=np.arange(num_images),
        category_ids=tuple(range(CLASSES)),
        class_names=tuple(f"class {number}" for number in range(CLASSES)),
        images=images,
        classes=classes,
        boxes=np.concatenate([corners, sizes], 1),
        areas=sizes.prod(1),
        crowd=np.zeros(len(images), dtype=bool),
    )
    first, count = np.searchsorted(images, np.arange(num_images)), np.bincount(images, minlength=num_images)
    shape = (num_images, DETECTIONS)
    chosen = np.minimum(first[:, None] + rng.integers(0, 1_000, shape) % np.maximum(count, 1)[:, None], len(images) - 1)
    low = corners[chosen] + rng.normal(0, 0.15, (*shape, 2)) * sizes[chosen]
    high = low + sizes[chosen] * np.exp(rng.normal(0, 0.15, (*shape, 2)))
    labels = np.where(rng.random(shape) < 0.5, classes[chosen], rng.integers(0, CLASSES, shape))
    boxes = torch.from_numpy(np.concatenate([low, high], -1)).float()
    return truth, Detections(torch.from_numpy(labels), boxes, torch.from_numpy(rng.random(shape)).float())


def measure(backend: str, num_images: int) -> dict[str, Any]:
    """Time, peak memory and metrics of one backend, in this process."""
    truth, detections = random_dataset(num_images)
    evaluator = CocoEvaluator(truth, range(CLASSES), backend)
    evaluator.update(detections, torch.arange(num_images))
    began = time.perf_counter()
    metrics = evaluator.compute()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "megabytes": peak / (2**20 if platform.system() == "Darwin" else 2**10),
        "metrics": metrics.as_dict(),
    }


def main() -> None:
    """Print a table of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=BACKENDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(arguments.measure, arguments.images)))
        return
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in BACKENDS}
    for _ in range(arguments.rounds):
        for name, rounds in results.items():
            command = [sys.executable, __file__, "--measure", name, "--images", str(arguments.images)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            rounds.append(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
    reference = results["pycocotools"]
    sys.stdout.write(f"{arguments.images} images, {os.cpu_count()} cores, medians of {arguments.rounds} rounds\n")
    for name, rounds in results.items():
        seconds, megabytes = (statistics.median(r[key] for r in rounds) for key in ("seconds", "megabytes"))
        ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(reference, rounds, strict=True)]
        equal = all(ours["metrics"] == reference[0]["metrics"] for ours in rounds)
        sys.stdout.write(
            f"{name:12} {seconds:8.2f} s  {statistics.median(ratios):6.1f} times as fast  {megabytes:6.0f} MB  "
            f"{'all numbers equal' if equal else 'NUMBERS DIFFER'}\n"
        )


if __name__ == "__main__":
    main()
