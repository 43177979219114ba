"""The data loader: settings that suit the machine, and a clock that says whether it keeps up."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from rtdetrv2_train.data.loading.collate import collate
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.step_totals import OptimizerSteps
from rtdetrv2_train.system.resources import available_cores

# A worker makes some 150 strongly augmented images of 640 x 640 a second.
MOST_WORKERS = 16
# Batches that each worker makes before they are asked for.
BATCHES_AHEAD = 2


class BatchLoader(DataLoader[Any]):
    """Batches of a data set.

    Args:
        dataset: makes the samples.
        batches: says which.
        workers: worker processes, which live on from epoch to epoch; 0: samples are made when a batch is asked for.
        steps: tells batches to train on about the optimizer step that they are a part of.

    Attributes:
        waited_seconds: time spent so far in waiting for batches; with no workers, all the time it takes to make them.
    """

    def __init__(
        self, dataset: DetectionDataset, batches: Sampler[Any], workers: int, steps: OptimizerSteps | None = None
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=prepare_worker,
            persistent_workers=workers > 0,
            prefetch_factor=BATCHES_AHEAD if workers else None,
        )
        self.steps = steps or OptimizerSteps()
        self.waited_seconds = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        start = time.perf_counter()
        iterator = self.steps.of(super().__iter__())
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited_seconds += time.perf_counter() - start
            yield batch
            start = time.perf_counter()


def automatic_workers(local_processes: int) -> int:
    """Worker processes for one of some training processes of this machine: all its cores but the one it trains on."""
    return max(0, min(available_cores() // local_processes - 1, MOST_WORKERS))


def prepare_worker(worker: int) -> None:
    """Keep a worker to one thread, as workers are what runs in parallel, and let the process that trains end it.

    Ctrl-C and clusters send their signals to the workers as well, which the last step still needs.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
