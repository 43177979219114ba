"""Convolution, BatchNorm, activation: the backward pass recomputes the last two, which saves activation memory.

Plain autograd keeps the output of each of the three. BatchNorm and activation are cheap beside the convolution, so the
backward pass recomputes both from the convolution's output. This is in-place activated BatchNorm (Rota Bulò et al.,
CVPR 2018) for any activation. The plain reference is ``activation(norm(conv(x)))``. Gradient checkpointing of whole
blocks is in ``model/gradient_checkpointing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# number of elements; keeping a smaller tensor costs less than recomputing it
RECOMPUTE_ABOVE = 2**20

_SOURCE = "_recompute_source"  # attribute of an activated tensor
_in_checkpointed_block = False  # such a block is recomputed as a whole


class _RecomputeSource:
    """What an activated tensor is recomputed from. Caches BatchNorm's output between two uses of it.

    Args:
        x_BCHW: input of BatchNorm, or of the activation where there is no BatchNorm.
        scale_and_shift: BatchNorm as ``x * scale + shift``, each ``[C, 1, 1]``.
        activation: function of the activation.
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
    """BatchNorm with batch statistics, then an activation. Only the input is kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x_BCHW: Tensor, weight_C: Tensor, bias_C: Tensor, norm: nn.BatchNorm2d, activation: nn.Module
    ) -> Tensor:
        y_BCHW, mean_C, inverse_deviation_C = torch.native_batch_norm(
            x_BCHW, weight_C, bias_C, norm.running_mean, norm.running_var, True, norm.momentum or 0.0, norm.eps
        )
        function, ctx.gradient = _ACTIVATIONS[type(activation)]
        ctx.eps = norm.eps
        scale_C = weight_C * inverse_deviation_C
        shift_C = bias_C - mean_C * scale_C
        ctx.source = _RecomputeSource(x_BCHW, (scale_C[:, None, None], shift_C[:, None, None]), function)
        ctx.save_for_backward(weight_C, mean_C, inverse_deviation_C)
        return function(y_BCHW, inplace=True)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight_C, mean_C, inverse_deviation_C = ctx.saved_tensors
        source, ctx.source = ctx.source, None  # frees the memory before the graph is freed
        if source is None:
            raise RuntimeError("this model allows one backward pass per forward pass: do without retain_graph=True")
        gradient_BCHW = ctx.gradient(gradients[0], source.normalised())
        of_inputs = torch.ops.aten.native_batch_norm_backward(
            gradient_BCHW, source.x_BCHW, weight_C, None, None, mean_C, inverse_deviation_C, True, ctx.eps, [True] * 3
        )
        return (*of_inputs, None, None)


def _relu_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(gradient, x, 0)


# each activation's function, and its gradient as computed from the activation's input
_ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    nn.ReLU: (F.relu, _relu_gradient),
    nn.SiLU: (F.silu, torch.ops.aten.silu_backward),
}


def norm_activation(norm: nn.Module, activation: nn.Module, x_BCHW: Tensor) -> Tensor:
    """``activation(norm(x))``. Only x is kept for the backward pass where that saves much memory.

    That is in training, for large tensors, plain BatchNorm, and ReLU or SiLU.
    """
    if not (
        isinstance(norm, nn.BatchNorm2d)
        and norm.training
        and norm.track_running_stats
        and norm.momentum is not None
        and x_BCHW.dtype == norm.weight.dtype
        and _should_recompute(activation, x_BCHW)
    ):
        return activation(norm(x_BCHW))
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    y_BCHW: Tensor = _NormActivation.apply(x_BCHW, norm.weight, norm.bias, norm, activation)
    setattr(y_BCHW, _SOURCE, y_BCHW.grad_fn.source)  # type: ignore[union-attr]
    return y_BCHW


def activate(activation: nn.Module, x: Tensor) -> Tensor:
    """``activation(x)``. :func:`apply` need not keep its output, which can be recomputed from x."""
    y: Tensor = activation(x)
    if _should_recompute(activation, x) and not getattr(activation, "inplace", False):
        setattr(y, _SOURCE, _RecomputeSource(x, None, _ACTIVATIONS[type(activation)][0]))
    return y


def apply(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``. Where x can be recomputed, its source is kept for the backward pass instead of x."""
    if not hasattr(x, _SOURCE):
        return function(x)
    with torch.autograd.graph.saved_tensors_hooks(_pack, _recompute):
        return function(x)


def recompute_pays(x: Tensor) -> bool:
    """Whether a tensor of this size is better recomputed than kept for the backward pass."""
    return x.numel() > RECOMPUTE_ABOVE


def _should_recompute(activation: nn.Module, x: Tensor) -> bool:
    return (
        type(activation) in _ACTIVATIONS
        and recompute_pays(x)
        and x.requires_grad
        and torch.is_grad_enabled()
        and not _in_checkpointed_block
        and not torch.compiler.is_compiling()
    )


def _pack(tensor: Tensor) -> Tensor | _RecomputeSource:
    return getattr(tensor, _SOURCE, tensor)


def _recompute(packed: Tensor | _RecomputeSource) -> Tensor:
    return packed.activated() if isinstance(packed, _RecomputeSource) else packed


@contextmanager
def within_checkpointed_block() -> Iterator[None]:
    """Within a block under gradient checkpointing, which recomputes everything anyway: recompute no single layer."""
    global _in_checkpointed_block
    before, _in_checkpointed_block = _in_checkpointed_block, True
    try:
        yield
    finally:
        _in_checkpointed_block = before
