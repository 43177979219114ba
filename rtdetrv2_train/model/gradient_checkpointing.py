"""Gradient (activation) checkpointing: the backward pass recomputes blocks (Chen et al., arXiv 1604.06174).

No activation inside a block is kept for the backward pass. That saves memory and costs about one more forward pass.
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
    """A part of a model that can be checkpointed; see :func:`enable_gradient_checkpointing`."""

    checkpointed = False

    def __call__(self, *args: Any) -> Any:
        """Run the block. If it is checkpointed, keep only its arguments for the backward pass."""
        if not (self.checkpointed and self.training and torch.is_grad_enabled()):
            return super().__call__(*args)
        return checkpoint(super().__call__, *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return within_checkpointed_block(), self._recomputation()

    @contextmanager
    def _recomputation(self) -> Iterator[None]:
        """Keep BatchNorm from updating its running statistics a second time."""
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
    """Turn gradient checkpointing on for every :class:`Block` of a model."""
    for module in model.modules():
        if isinstance(module, Block):
            module.checkpointed = True
