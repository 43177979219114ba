"""Speed and memory of training and inference, compared with Hugging Face's and the authors' code.

    python -m benchmarks.speed                                  # all workloads, five rounds
    python -m benchmarks.speed --authors RT-DETR/rtdetrv2_pytorch train-r18vd-320 criterion-300
    python -m benchmarks.speed --authors ... --results speed.json --chart docs/pictures/speed.webp

Each implementation is measured in its own process. They take turns in every round, so that a machine that slows down
slows all of them. The result is the median over rounds of the ratio within a round. The speed of the machine itself, a
large matrix product and a large convolution, is measured in the same run.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import CONTENDERS, Contender, Setting
from benchmarks.counting import OperationCounter
from benchmarks.speed_report import Rounds, chart, row

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Workload:
    """One measurement.

    Attributes:
        task: ``train`` (a whole step), ``criterion`` (with matching), ``infer`` or ``count`` (operations of a step).
        model: name of the model.
        size: side of the images in pixels.
        batch: batch size.
        boxes: ground-truth boxes per image.
        freeze_batchnorm: freeze the backbone's BatchNorm, as Hugging Face's training does.
        compiled: use ``torch.compile`` for inference.
        half: infer in bfloat16 (AMP), all implementations.
        contenders: implementations that are compared.
    """

    task: str
    model: str
    size: int
    batch: int
    boxes: int = 8
    freeze_batchnorm: bool = False
    compiled: bool = False
    half: bool = False
    contenders: tuple[str, ...] = tuple(CONTENDERS)


OURS_AND_AUTHORS = ("ours", "authors")
WORKLOADS = {
    "train-nano-128": Workload("train", "nano", 128, 16, contenders=OURS_AND_AUTHORS),
    "train-r18vd-320": Workload("train", "r18vd", 320, 8, contenders=OURS_AND_AUTHORS),
    "train-r18vd-640": Workload("train", "r18vd", 640, 4, contenders=OURS_AND_AUTHORS),
    "train-r50vd-640": Workload("train", "r50vd", 640, 2),
    "train-r18vd-320-frozen": Workload(
        "train", "r18vd", 320, 8, freeze_batchnorm=True, contenders=("ours", "huggingface")
    ),
    "criterion-8": Workload("criterion", "r50vd", 256, 4, 8, contenders=OURS_AND_AUTHORS),
    "criterion-60": Workload("criterion", "r50vd", 256, 4, 60, contenders=OURS_AND_AUTHORS),
    "criterion-300": Workload("criterion", "r50vd", 256, 4, 300, contenders=OURS_AND_AUTHORS),
    "infer-r18vd-1": Workload("infer", "r18vd", 640, 1),
    "infer-r18vd-8": Workload("infer", "r18vd", 640, 8),
    "infer-r50vd-1": Workload("infer", "r50vd", 640, 1),
    "infer-r18vd-1-compiled": Workload("infer", "r18vd", 640, 1, compiled=True, contenders=OURS_AND_AUTHORS),
    "infer-r18vd-1-half": Workload("infer", "r18vd", 640, 1, half=True),
    "infer-r18vd-8-half": Workload("infer", "r18vd", 640, 8, half=True),
    "count-r50vd": Workload("count", "r50vd", 256, 4, contenders=OURS_AND_AUTHORS),
}


def measure(workload: Workload, contender: str, repeats: int) -> dict[str, float]:
    """The figures of one implementation, in this process."""
    if contender == "machine":
        return machine()
    setting = Setting(
        half=torch.bfloat16 if workload.half else None, compiled="inductor" if workload.compiled else None
    )
    entry = CONTENDERS[contender](
        workload.model, workload.size, workload.batch, workload.boxes, workload.freeze_batchnorm, setting
    )
    if workload.task == "count":
        return operations(entry)
    if workload.task == "train":
        seconds = median_seconds(entry.train_step, repeats)
        if contender == "ours":
            with FlopCounterMode(display=False) as counted:
                entry.train_step()
            return {**figures_of(seconds), "gflops": counted.get_total_flops() / seconds / 1e9}
    elif workload.task == "criterion":
        output = entry.forward()
        seconds = median_seconds(lambda: entry.loss(output), repeats)
    else:
        predict = entry.predictor()
        with torch.inference_mode(), entry.amp():
            seconds = median_seconds(predict, repeats)
    return figures_of(seconds)


def figures_of(seconds: float) -> dict[str, float]:
    """Seconds, and peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "megabytes": peak / (2**20 if platform.system() == "Darwin" else 2**10)}


def median_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after two warm-up calls."""
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def operations(entry: Contender) -> dict[str, float]:
    """Dispatched operations of one training step, and device-to-host reads among them."""
    entry.train_step()
    with OperationCounter() as forward:
        output = entry.forward()
    with OperationCounter() as criterion:
        loss = entry.loss(output)
    with OperationCounter() as backward:
        loss.backward()
    return {
        "forward": forward.operations,
        "criterion": criterion.operations,
        "backward": backward.operations,
        "reads": forward.reads + criterion.reads + backward.reads,
    }


def machine() -> dict[str, float]:
    """GFLOP/s of a product of 2048 x 2048 matrices and of a 3x3 convolution."""
    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    images, kernel = torch.rand(8, 128, 80, 80), torch.rand(128, 128, 3, 3)
    images, kernel = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (images, kernel))
    product = median_seconds(lambda: left @ right, 10)
    convolution = median_seconds(lambda: F.conv2d(images, kernel, padding=1), 10)
    return {"product": 2 * 2048**3 / product / 1e9, "convolution": 2 * 8 * 80**2 * 128**2 * 9 / convolution / 1e9}


def in_own_process(workload: str, contender: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Run :func:`measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.speed", workload, "--measure", contender]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RTDETR_AUTHORS": str(arguments.authors or "")}
    result = subprocess.run(
        [*command, "--repeats", str(arguments.repeats)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; default: all")
    parser.add_argument("--authors", type=Path, help="folder rtdetrv2_pytorch in a checkout of lyuwenyu/RT-DETR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="steps timed in each process")
    parser.add_argument("--results", type=Path, help="JSON file for the figures of every round")
    parser.add_argument("--chart", type=Path, help="image file for a chart of the ratios")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload {', '.join(sorted(unknown))}: use {', '.join(WORKLOADS)}")
    if arguments.measure:
        result = measure(WORKLOADS[arguments.workloads[0]], arguments.measure, arguments.repeats)
        sys.stdout.write(json.dumps(result) + "\n")
        return
    first = next(iter(WORKLOADS))
    ceiling = in_own_process(first, "machine", arguments)
    print(f"{os.cpu_count()} cores, PyTorch {torch.__version__}, rounds: {arguments.rounds}; machine: ", end="")
    print(", ".join(f"{key} {value:.0f} GFLOP/s" for key, value in ceiling.items()) + "\n")
    print("| workload | ours | Hugging Face | authors |\n|---|---|---|---|", flush=True)
    results: dict[str, Rounds] = {}
    for name in arguments.workloads or WORKLOADS:
        workload = WORKLOADS[name]
        taking_part = [c for c in workload.contenders if c != "authors" or arguments.authors]
        rounds: Rounds = {contender: [] for contender in taking_part}
        for _ in range(1 if workload.task == "count" else arguments.rounds):
            for contender, figures in rounds.items():
                figures.append(in_own_process(name, contender, arguments))
        print(row(name, rounds, max(ceiling.values())), flush=True)
        results[name] = rounds
        if arguments.results:
            arguments.results.write_text(json.dumps({"machine": ceiling, "rounds": results}, indent=1))
    if arguments.chart:
        chart(results, arguments.chart)


if __name__ == "__main__":
    main()
