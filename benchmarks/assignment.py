"""The assignment kernel of a GPU beside SciPy: the same total cost on random and nasty cases, and the time of both.

python -m benchmarks.assignment --cases 10000     # without a GPU Triton's interpreter runs the kernel
python -m benchmarks.assignment --times           # needs a GPU
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported

from rtdetrv2_train.loss.matcher import PendingAssignment
from rtdetrv2_train.ops.assignment import HIGH_COST, solve_assignments

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KINDS = ("random", "ties", "all equal", "more boxes than queries", "no box", "infinite", "not a number", "far apart")


def case(kind: str, random: np.random.Generator) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Costs ``[N, G, Q]`` and the number of boxes of each image."""
    num_queries, num_sets = int(random.integers(1, 9)), int(random.integers(1, 3))
    most = 2 * num_queries + 2 if kind == "more boxes than queries" else num_queries + 1
    counts = tuple(int(n) for n in random.integers(0, most, random.integers(1, 3)))
    if kind == "no box":
        counts = (0,) * len(counts)
    shape = (sum(counts), num_sets, num_queries)
    cost = random.normal(size=shape).astype(np.float32)
    if kind == "ties":
        cost = random.integers(0, 3, shape).astype(np.float32)
    elif kind == "all equal":
        cost = np.full(shape, random.normal(), np.float32)
    elif kind == "infinite":
        cost[random.random(shape) < 0.3] = random.choice([np.inf, -np.inf])
    elif kind == "not a number":
        cost[random.random(shape) < 0.3] = np.nan
    elif kind == "far apart":
        cost *= 10.0 ** random.integers(-3, 4, shape)
    return cost, counts


def agrees(cost_NGQ: NDArray[np.float32], counts: tuple[int, ...]) -> bool:
    """Whether the kernel's pairs are an assignment of SciPy's cost, in every image and set."""
    query_GK, box_GK = (pairs.cpu().numpy() for pairs in solve(torch.from_numpy(cost_NGQ).to(DEVICE), counts))
    finite_NGQ = np.nan_to_num(cost_NGQ.astype(np.float64), nan=HIGH_COST, posinf=HIGH_COST, neginf=HIGH_COST)
    first_box = first_pair = 0
    for count in counts:
        boxes, pairs = slice(first_box, first_box + count), min(count, cost_NGQ.shape[2])
        for index in range(cost_NGQ.shape[1]):
            cost = finite_NGQ[boxes, index]
            query = query_GK[index, first_pair : first_pair + pairs]
            box = box_GK[index, first_pair : first_pair + pairs] - first_box
            if len(set(query)) < pairs or len(set(box)) < pairs or not all((box >= 0) & (box < count)):
                return False
            if not np.isclose(cost[box, query].sum(), cost[linear_sum_assignment(cost)].sum(), rtol=1e-12, atol=1e-9):
                return False
        first_box, first_pair = first_box + count, first_pair + pairs
    return True


def solve(cost_NGQ: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Query and box of each pair, by the kernel."""
    image_index = torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64)).to(cost_NGQ.device)
    return solve_assignments(cost_NGQ, image_index, counts)


def check(cases: int, seed: int) -> dict[str, int]:
    """How many cases of each kind are not solved as SciPy solves them."""
    random = np.random.default_rng(seed)
    wrong = dict.fromkeys(KINDS, 0)
    for number in range(cases):
        kind = KINDS[number % len(KINDS)]
        wrong[kind] += not agrees(*case(kind, random))
    return wrong


def milliseconds(function: Callable[[], object]) -> float:
    """Median of ten calls, each until the device is done."""
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[2:])


def print_times() -> None:
    """A table of the time that an assignment takes with both, 16 images and 7 sets of 300 queries."""
    print("| boxes an image | kernel, ms | SciPy, ms |\n|---|---|---|")
    for boxes in (1, 7, 30, 100, 300):
        counts = (boxes,) * 16
        cost_NGQ = torch.rand(sum(counts), 7, 300, device=DEVICE) * 10
        kernel = milliseconds(lambda cost=cost_NGQ, counts=counts: solve(cost, counts))  # type: ignore[misc]
        scipy = milliseconds(lambda cost=cost_NGQ, counts=counts: PendingAssignment(cost, counts).solve())  # type: ignore[misc]
        print(f"| {boxes} | {kernel:.2f} | {scipy:.2f} |", flush=True)


def main() -> None:
    """Check, and measure where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", action="store_true")
    arguments = parser.parse_args()
    if arguments.times:
        if not torch.cuda.is_available():
            parser.error("--times needs a GPU: Triton's interpreter says nothing about time")
        print_times()
    wrong = check(arguments.cases, arguments.seed)
    for kind, number in wrong.items():
        print(f"{kind}: {number} wrong")
    print(f"{arguments.cases} cases on {DEVICE}, {sum(wrong.values())} with another cost than SciPy's")
    if any(wrong.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
