"""A whole training step of this project without Lightning, and its parts, for what is measured of single steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import Ours, Setting
from rtdetrv2_train.loss.matcher import Assignment
from rtdetrv2_train.training.callbacks.ema import _RampedEMA
from rtdetrv2_train.types import Targets

BOXES = 8
"""Ground-truth boxes of an image."""
_DECAY = 0.999


class WholeStep(Ours):
    """Forward pass in AMP, criterion, backward pass, clipping, fused AdamW and EMA, on one batch.

    Args:
        name: name of the model.
        size: side of the square images in pixels.
        batch: batch size.
        setting: device, precision and compilation.
    """

    def __init__(self, name: str, size: int, batch: int, setting: Setting) -> None:
        super().__init__(name, size, batch, BOXES, setting=setting)
        self.targets: Targets = replace(self.targets, noise_seeds=torch.arange(batch, device=setting.device))
        self.ema = _RampedEMA(self.model, torch.device(setting.device))
        self.ema.decay = _DECAY

    def forward_pass(self) -> Any:
        """The model's output, in AMP."""
        with self.amp():
            return self.forward()

    def train_step(self) -> None:
        """The whole step."""
        super().train_step()
        self.ema.update_parameters(self.model)


@dataclass(frozen=True)
class _Given:
    assignment: Assignment

    def solve(self) -> Assignment:
        return self.assignment


class RecordedMatcher:
    """Gives the assignment of the first step again in every other, without computing anything.

    Args:
        matcher: of the criterion, which finds the first.
    """

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher
        self._given: tuple[Tensor, Tensor, Targets] | None = None
        self._found: Assignment | None = None

    def begin(self, logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets) -> _Given:
        """As the matcher's."""
        if self._found is None:
            self._given = (logits_GBQC.detach(), boxes_GBQ4.detach(), targets)
            self._found = self.solve()
        return _Given(self._found)

    def solve(self) -> Assignment:
        """Find the assignment of the first step, again: costs and their solution."""
        assert self._given is not None, "no step was done yet"
        found: Assignment = self.matcher.begin(*self._given).solve()
        return found


@contextmanager
def recorded_matcher(step: Ours) -> Iterator[RecordedMatcher]:
    """Within this context a step has the assignment that its first step in it finds."""
    own = step.criterion.matcher
    step.criterion.matcher = recorded = RecordedMatcher(own)
    try:
        step.train_step()
        yield recorded
    finally:
        step.criterion.matcher = own
