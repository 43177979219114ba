"""Out of memory (OOM): a batch that does not fit into the device's memory is split, with the same gradient."""

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
    """Splits batches that run out of memory, and remembers the size that fits.

    Attributes:
        max_pixels: largest images x height x width of a part; None before the first OOM.
    """

    def __init__(self) -> None:
        self.max_pixels: int | None = None

    def loss(self, batch: Batch, loss_of: Callable[[Batch], Tensor], undo: Callable[[], None]) -> Tensor:
        """The loss of a batch. Its backward pass splits the batch into as many parts as memory needs.

        Args:
            batch: training batch.
            loss_of: computes a loss; the losses of the parts must add up to that of the batch.
            undo: discards what the backward pass has added to the gradients so far.

        Returns:
            a scalar. It is 0 for a batch known to be too large, whose parts are computed in the backward pass only.

        Raises:
            UserError: in the backward pass, if not even one image fits.
        """
        whole: list[Tensor] = []  # the only reference to the graph, so that its memory can be freed
        if len(self._parts(batch)) == 1:
            with contextlib.suppress(torch.OutOfMemoryError):
                whole.append(loss_of(batch))
            if not whole:
                self._halve_limit(batch)

        def backward(gradient: Tensor) -> None:
            while True:
                parts = self._parts(batch)
                with contextlib.suppress(torch.OutOfMemoryError):
                    for part in parts:
                        (whole.pop() if whole else loss_of(part)).backward(gradient)
                    return
                undo()
                self._halve_limit(parts[-1])

        value = whole[0].detach().clone() if whole else torch.zeros((), device=batch.images.device)
        return _Deferred.apply(torch.zeros_like(value, requires_grad=True), value, backward)

    def _parts(self, batch: Batch) -> list[Batch]:
        height, width = batch.images.shape[-2:]
        at_once = len(batch) if self.max_pixels is None else max(self.max_pixels // (height * width), 1)
        return batch.split(-(-len(batch) // at_once))

    def _halve_limit(self, batch: Batch) -> None:
        """Limit parts to half the size of a batch that ran out of memory."""
        height, width = batch.images.shape[-2:]
        if len(batch) == 1:
            raise UserError(
                f"out of memory (OOM) with one image of {height} x {width}: use smaller images (model.image_size, "
                "model.multiscale), a smaller model, gradient_checkpointing=true or trainer.precision=bf16-mixed"
            )
        self.max_pixels = len(batch) // 2 * height * width
        log.warning("out of memory (OOM) with %d images of %d x %d: such batches are split", len(batch), height, width)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Deferred(torch.autograd.Function):
    """A loss whose graph autograd does not hold. The backward pass calls a function with the gradient instead."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, loss: Tensor, backward: Callable[[Tensor], None]) -> Tensor:
        """``loss``. Autograd calls ``backward`` because ``anchor`` requires a gradient."""
        ctx.run_backward = backward
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        """Call the function."""
        with torch.enable_grad():
            ctx.run_backward(gradient)
        return None, None, None
