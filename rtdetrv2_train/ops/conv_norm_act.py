"""Convolution, BatchNorm, activation: only the convolution's output is kept for the backward pass.

Plain autograd keeps the output of each of the three. BatchNorm and activation cost next to nothing beside the
convolution, so both are computed again from its output when they are needed. The idea is that of in-place activated
BatchNorm (Rota Bulò et al., CVPR 2018), for any activation. The plain reference is ``activation(norm(conv(x)))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# values of a tensor; to keep one that is not larger costs less than to make it again
PAYS_ABOVE = 2**20

_SOURCE = "_made_from"
_in_checkpointed_block = False  # which is computed again as a whole, so nothing in it needs this


class _Source:
    """What an activated tensor was made from; and, as long as the backward pass has use for it, the norm's output.

    Args:
        x_BCHW: input of the norm, or of the activation where there is no norm.
        scale_and_shift: the norm as ``x * scale + shift``, each ``[C, 1, 1]``.
        activation: in place.
    """

    def __init__(
        self, x_BCHW: Tensor, scale_and_shift: tuple[Tensor, Tensor] | None, activation: Callable[..., Tensor]
    ) -> None:
        self.x_BCHW = x_BCHW
        self.scale_and_shift = scale_and_shift
        self.activation = activation
        self._normalised: Tensor | None = None

    def normalised(self) -> Tensor:
        """The activation's input."""
        if self.scale_and_shift is None:
            return self.x_BCHW
        if self._normalised is None:
            scale_C11, shift_C11 = self.scale_and_shift
            self._normalised = torch.addcmul(shift_C11, self.x_BCHW, scale_C11)
        return self._normalised

    def activated(self) -> Tensor:
        """The activation's output."""
        return self.activation(self.normalised())


class _NormActivation(torch.autograd.Function):
    """Batch norm with the statistics of the batch and an activation; keeps the input only."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, norm: nn.BatchNorm2d, activation: nn.Module
    ) -> Tensor:
        y_BCHW, mean_C, inverse_deviation_C = torch.native_batch_norm(
            x_BCHW, weight_C, bias_C, norm.running_mean, norm.running_var, True, norm.momentum or 0.0, norm.eps
        )
        function, ctx.gradient = _KNOWN[type(activation)]
        ctx.eps = norm.eps
        scale_C = weight_C * inverse_deviation_C
        shift_C = bias_C - mean_C * scale_C
        ctx.source = _Source(x_BCHW, (scale_C[:, None, None], shift_C[:, None, None]), function)
        ctx.save_for_backward(weight_C, mean_C, inverse_deviation_C)
        return function(y_BCHW, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight_C, mean_C, inverse_deviation_C = ctx.saved_tensors
        source, ctx.source = ctx.source, None  # the graph outlives this step of it, but need not keep the memory
        if source is None:
            raise RuntimeError("this model can go backward only once for each forward: do without retain_graph=True")
        gradient_BCHW = ctx.gradient(gradients[0], source.normalised())
        of_inputs = torch.ops.aten.native_batch_norm_backward(
            gradient_BCHW, source.x_BCHW, weight_C, None, None, mean_C, inverse_deviation_C, True, ctx.eps, [True] * 3
        )
        return (*of_inputs, None, None)


def _relu_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(gradient, x, 0)


# an activation with its gradient, which is computed from the activation's input
_KNOWN: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    nn.ReLU: (F.relu, _relu_gradient),
    nn.SiLU: (F.silu, torch.ops.aten.silu_backward),
}


def norm_activation(norm: nn.Module, activation: nn.Module, x_BCHW: Tensor) -> Tensor:
    """``activation(norm(x))``, of which only x is kept for the gradient where that saves much memory.

    That is in training, for large tensors, plain batch norm, and ReLU or SiLU.
    """
    if not (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and x_BCHW.dtype == norm.weight.dtype
        and _pays(activation, x_BCHW)
    ):
        return activation(norm(x_BCHW))
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    y_BCHW: Tensor = _NormActivation.apply(x_BCHW, norm.weight, norm.bias, norm, activation)
    setattr(y_BCHW, _SOURCE, y_BCHW.grad_fn.source)  # type: ignore[union-attr]
    return y_BCHW


def activate(activation: nn.Module, x: Tensor) -> Tensor:
    """``activation(x)``, whose output :func:`apply` need not keep, as it can be made from x again."""
    y: Tensor = activation(x)
    if _pays(activation, x) and not getattr(activation, "inplace", False):
        setattr(y, _SOURCE, _Source(x, None, _KNOWN[type(activation)][0]))
    return y


def apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``, for whose gradient the source of x is kept in its place where x has one."""
    if not hasattr(x, _SOURCE):
        return function(x)
    with torch.autograd.graph.saved_tensors_hooks(_source_of, _made_again):
        return function(x)


def is_large(x: Tensor) -> bool:
    """Whether a tensor like this is better made again than kept."""
    return x.numel() > PAYS_ABOVE


def _pays(activation: nn.Module, x: Tensor) -> bool:
    return (
        type(activation) in _KNOWN
        and is_large(x)
        and x.requires_grad
        and torch.is_grad_enabled()
        and not _in_checkpointed_block
        and not torch.compiler.is_compiling()
    )


def _source_of(tensor: Tensor) -> Tensor | _Source:
    return getattr(tensor, _SOURCE, tensor)


def _made_again(kept: Tensor | _Source) -> Tensor:
    return kept.activated() if isinstance(kept, _Source) else kept


@contextmanager
def within_checkpointed_block() -> Iterator[None]:
    """Within a block under gradient checkpointing: nothing here needs to be computed again by itself."""
    global _in_checkpointed_block
    before, _in_checkpointed_block = _in_checkpointed_block, True
    try:
        yield
    finally:
        _in_checkpointed_block = before
