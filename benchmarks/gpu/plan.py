"""What `benchmarks.gpu` is made of: parts, their measurements, and what all of them are told. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
"""Figures by name: numbers, words, or again figures by name."""


class Skipped(Exception):  # noqa: N818 (it is no error)
    """Raised by a measurement that is not possible here, with the reason."""


@dataclass(frozen=True)
class Part:
    """Measurements that share a process and a budget.

    Attributes:
        module: whose function ``measurements(plan)`` gives them, the most important first.
        budget: seconds.
    """

    module: str
    budget: float


@dataclass(frozen=True)
class Plan:
    """What measurements are told.

    Attributes:
        dry_run: compute on the CPU, at tiny sizes, to see that everything works.
        folder: empty folder for files that are not kept.
        authors: folder ``rtdetrv2_pytorch`` of a checkout of the authors' repository; None without them.
    """

    dry_run: bool
    folder: Path
    authors: Path | None = None

    @property
    def device(self) -> str:
        """Name of the device to compute on."""
        return "cpu" if self.dry_run else "cuda"

    def needs_gpu(self, what: str) -> None:
        """Skip what only a GPU has.

        Raises:
            Skipped: in a dry run.
        """
        if self.dry_run:
            raise Skipped(f"{what} only on a GPU")


@dataclass(frozen=True)
class Measurement:
    """One measurement or check.

    Attributes:
        name: unique within its part.
        run: measures; an exception is its result, too.
        at_most: bounds of some of the figures; beyond them a check has failed.
        limit: seconds after which it is given up.
    """

    name: str
    run: Callable[[], Figures]
    at_most: Mapping[str, float] = field(default_factory=dict)
    limit: float = 60.0


PARTS = {
    "card": Part("benchmarks.gpu.card", 15),
    "right": Part("benchmarks.gpu.right", 85),
    "waits": Part("benchmarks.gpu.waits", 30),
    "training": Part("benchmarks.gpu.training", 170),
    "inference": Part("benchmarks.gpu.inference", 75),
    "run": Part("benchmarks.gpu.run", 45),
}
"""In their order; 7 minutes in all."""
