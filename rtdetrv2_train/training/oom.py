"""Batches that do not fit into the device's memory, trained on in parts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.types import Batch

log = logging.getLogger(__name__)


class SplitOnOOM:
    """Learns how large a batch may be, and splits those that are larger.

    Attributes:
        most_pixels: images x height x width that are tried at once; None: no limit has been met.
    """

    def __init__(self) -> None:
        self.most_pixels: int | None = None

    def loss(self, batch: Batch, loss_of: Callable[[Batch], Tensor], undo: Callable[[], None]) -> Tensor:
        """The loss of a batch, whose backward pass goes through as many parts as it takes.

        Args:
            batch: to train on.
            loss_of: computes a loss; those of the parts of a batch add up to that of the whole.
            undo: takes away what the backward pass has added to the gradients so far.

        Returns:
            a scalar; 0 for a batch that is known to be too large, whose parts are only computed in the backward pass.
        """
        whole: list[Tensor] = []  # holds the graph alone, so that its memory can be given back
        if len(self._parts(batch)) == 1:
            with contextlib.suppress(torch.OutOfMemoryError):
                whole.append(loss_of(batch))
            if not whole:
                self._lower(batch)

        def backward(gradient: Tensor) -> None:
            while True:
                parts = self._parts(batch)
                with contextlib.suppress(torch.OutOfMemoryError):
                    for part in parts:
                        (whole.pop() if whole else loss_of(part)).backward(gradient)
                    return
                undo()
                self._lower(parts[-1])

        value = whole[0].detach().clone() if whole else torch.zeros((), device=batch.images.device)
        return _Deferred.apply(torch.zeros_like(value, requires_grad=True), value, backward)

    def _parts(self, batch: Batch) -> list[Batch]:
        height, width = batch.images.shape[-2:]
        at_once = len(batch) if self.most_pixels is None else max(self.most_pixels // (height * width), 1)
        return batch.split(-(-len(batch) // at_once))

    def _lower(self, batch: Batch) -> None:
        """From now on try half of what was too much."""
        height, width = batch.images.shape[-2:]
        if len(batch) == 1:
            raise UserError(
                f"the device's memory does not hold the training of one image of {height} x {width}: use smaller ones "
                "(model.image_size, model.multiscale), a smaller model, or trainer.precision=bf16-mixed"
            )
        self.most_pixels = len(batch) // 2 * height * width
        log.warning(
            "out of memory with %d images of %d x %d: trained on in parts from now on", len(batch), height, width
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Deferred(torch.autograd.Function):
    """A loss whose graph somebody else holds, who is called with the gradient when its turn has come."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, loss: Tensor, backward: Callable[[Tensor], None]) -> Tensor:
        """``loss``; that ``anchor`` wants a gradient has autograd come here."""
        ctx.go_on = backward
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """Hand over."""
        with torch.enable_grad():
            ctx.go_on(gradient)
        return None, None, None
