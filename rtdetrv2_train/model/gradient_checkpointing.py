"""Gradient checkpointing: whole blocks run again in the backward pass (Chen et al., arXiv 1604.06174).

Nothing inside a block is kept for the backward pass. That saves memory and costs about one more forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rtdetrv2_train.ops.conv_norm_act import within_checkpointed_block


class Block(nn.Module):
    """A part of a model that the backward pass can run again; see :func:`enable_gradient_checkpointing`."""

    checkpointed = False

    def __call__(self, *args: Any) -> Any:
        """Run it, keeping nothing but its arguments where it will be run again."""
        if not (self.checkpointed and self.training and torch.is_grad_enabled()):
            return super().__call__(*args)
        return checkpoint(super().__call__, *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return within_checkpointed_block(), self._second_run()

    @contextmanager
    def _second_run(self) -> Iterator[None]:
        """Norms do not count the batch again."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d | nn.SyncBatchNorm)]
        before = [(n.momentum, None if n.num_batches_tracked is None else n.num_batches_tracked.clone()) for n in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            with within_checkpointed_block():
                yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum = momentum
                if norm.num_batches_tracked is not None and count is not None:
                    norm.num_batches_tracked.copy_(count)


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """From now on keep nothing of the inside of each :class:`Block` of a model for the backward pass."""
    for module in model.modules():
        if isinstance(module, Block):
            module.checkpointed = True
