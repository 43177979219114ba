"""Gathering the detections of all ranks: tensors sent to rank 0, compared with pickled objects sent to every rank.

    PYTHONPATH=. python benchmarks/gather.py

Each rank has 300 detections for each of its images. Every method and round uses new processes. Time is from barrier to
barrier. Memory is the peak of the process minus what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.ground_truth import GroundTruth
from rtdetrv2_train.types import Detections

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("tensors", "objects")
DETECTIONS, BATCH = 300, 100


def peak_megabytes() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(way: str, rank: int, world_size: int, images: int, rendezvous: str) -> dict[str, float]:
    """Gather once, as one of the ranks."""
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    total = images * world_size
    none = np.zeros(0, dtype=np.int64)
    truth = GroundTruth(np.arange(total), (1,), ("object",), none, none, np.zeros((0, 4)), np.zeros(0), none > 0)
    evaluator = CocoEvaluator(truth, [1])
    objects = []
    for first in range(rank * images, (rank + 1) * images, BATCH):
        labels = torch.zeros(BATCH, DETECTIONS, dtype=torch.int64)
        boxes, scores = torch.rand(BATCH, DETECTIONS, 4), torch.rand(BATCH, DETECTIONS)
        ids = torch.arange(first, first + BATCH)
        if way == "tensors":
            evaluator.update(Detections(labels, boxes, scores), ids)
        else:
            parts = zip(ids.tolist(), labels, boxes, scores, strict=True)
            objects += [(i, {"labels": own.clone(), "boxes": b.clone(), "scores": s.clone()}) for i, own, b, s in parts]
    dist.barrier()
    before, start = peak_megabytes(), time.perf_counter()
    if way == "tensors":
        evaluator.gather()
    else:
        received: list[Any] = [None] * world_size
        dist.all_gather_object(received, objects)
    dist.barrier()
    result = {"seconds": time.perf_counter() - start, "megabytes": peak_megabytes() - before}
    dist.destroy_process_group()
    return result


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images per rank, a multiple of 100")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        way, rank, rendezvous = arguments.part
        found = measure(way, int(rank), arguments.world_size, arguments.images, rendezvous)
        sys.stdout.write(json.dumps(found))
        return
    results: dict[str, list[list[dict[str, float]]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, rounds in results.items():
            with tempfile.TemporaryDirectory() as folder:
                size = ["--images", str(arguments.images), "--world-size", str(arguments.world_size)]
                parts = [
                    subprocess.Popen(
                        [sys.executable, __file__, *size, "--part", way, str(rank), f"{folder}/rendezvous"],
                        env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(ROOT)},
                        stdout=subprocess.PIPE,
                    )
                    for rank in range(arguments.world_size)
                ]
                rounds.append([json.loads(part.communicate()[0]) for part in parts])
    for way, rounds in results.items():
        seconds = statistics.median(of_round[0]["seconds"] for of_round in rounds)
        first, other = (statistics.median(r[k]["megabytes"] for r in rounds) for k in (0, 1))
        sys.stdout.write(f"{way:8} {seconds:6.2f} s, rank 0 {first:6.0f} MB more, other ranks {other:6.0f} MB more\n")


if __name__ == "__main__":
    main()
