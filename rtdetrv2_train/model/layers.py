"""Small building blocks shared by several parts of the model.

Shape suffixes: B batch, C channels, H and W height and width, N tokens, D model width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from itertools import pairwise
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.ops.conv_norm_act import apply, norm_activation

T = TypeVar("T")


def is_recorded() -> bool:
    """Whether the model's graph is being recorded, by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


class ShapeCache(Generic[T]):
    """Caches tensors that depend on shapes alone: position embeddings, anchors, attention masks.

    Args:
        capacity: number of entries; the oldest is dropped first. Multi-scale training needs 11 sizes.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[Hashable, T] = OrderedDict()
        self._only: T | None = None

    def bake(self) -> None:
        """Give the entry that was used last, whatever the key: for a graph of one image size."""
        self._only = next(reversed(self._entries.values()))

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry for ``key``, made by ``make`` at first use.

        While a graph is recorded nothing is looked up or kept: sizes may be symbols then, and tensors have no values.
        """
        if self._only is not None:
            return self._only
        if is_recorded():
            return make()
        if key not in self._entries:
            with torch.inference_mode(False), torch.no_grad():  # training may use what evaluation has made
                self._entries[key] = make()
            if len(self._entries) > self.capacity:
                self._entries.popitem(last=False)
        return self._entries[key]

    def __deepcopy__(self, memo: dict[int, object]) -> ShapeCache[T]:
        return ShapeCache(self.capacity)

    def __getstate__(self) -> dict[str, object]:
        return {"capacity": self.capacity, "_entries": OrderedDict(), "_only": None}


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm with fixed statistics and fixed affine parameters, all of them buffers.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(num_features))
        self.register_buffer("bias", torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self._folded: tuple[tuple[Tensor, ...], tuple[int, ...], Tensor, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]``."""
        return F.batch_norm(x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def after(self, conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
        """``norm(conv(x))`` for a convolution without bias, computed as one convolution with scaled kernel and bias.

        So forward and backward pass read the map once. Autograd scales the gradient of the kernel.
        """
        scale_C, shift_C = self._scale_and_shift()
        kernel = conv.weight * scale_C[:, None, None, None]
        return F.conv2d(x_BCHW, kernel, shift_C, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """BatchNorm as ``x * scale + shift``, each ``[C]``. Cached until a buffer changes."""
        if is_recorded():
            return self._fold()
        buffers = (self.weight, self.bias, self.running_mean, self.running_var)
        versions = tuple(buffer._version for buffer in buffers)
        known = self._folded
        if known is None or known[1] != versions or any(a is not b for a, b in zip(known[0], buffers, strict=True)):
            with torch.inference_mode(False), torch.no_grad():  # training may use what evaluation has made
                self._folded = known = (buffers, versions, *self._fold())
        return known[2], known[3]

    def _fold(self) -> tuple[Tensor, Tensor]:
        scale_C = self.weight * (self.running_var + self.eps).rsqrt()
        return scale_C, self.bias - self.running_mean * scale_C


def make_activation(name: str | None) -> nn.Module:
    """The activation called ``relu``, ``silu``, ``gelu`` or None.

    Raises:
        ValueError: for another name.
    """
    if name is None:
        return nn.Identity()
    if name == "relu":  # its gradient needs the output alone, so in place saves one activation
        return nn.ReLU(inplace=True)
    if name == "silu":
        return nn.SiLU()
    if name == "gelu":
        return nn.GELU()
    raise ValueError(f"unknown activation '{name}': use relu, silu, gelu or null")


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, activation.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel; padding keeps the size at stride 1.
        stride: stride of the convolution.
        activation: name for :func:`make_activation`.
        frozen_batchnorm: use fixed statistics and affine parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activation: str | None = None,
        frozen_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = FrozenBatchNorm2d(out_channels) if frozen_batchnorm else nn.BatchNorm2d(out_channels)
        self.act = make_activation(activation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C', H / stride, W / stride]``."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            return cast(Tensor, self.act(apply(partial(self.norm.after, self.conv), x_BCHW)))
        return norm_activation(self.norm, self.act, apply(self.conv, x_BCHW))


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        in_width: width of the input.
        hidden_width: width between the layers.
        out_width: width of the output.
        num_layers: number of linear layers.
    """

    def __init__(self, in_width: int, hidden_width: int, out_width: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_width, *[hidden_width] * (num_layers - 1), out_width]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_width]`` to ``[..., out_width]``."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def check_heads(where: str, width: int, num_heads: int) -> None:
    """Check that attention heads share a width.

    Raises:
        UserError: if they cannot.
    """
    if num_heads < 1 or width % num_heads:
        raise UserError(f"{where}.num_heads={num_heads} must divide {where}.width={width}")


class SelfAttention(nn.Module):
    """Multi-head self-attention. Positions are added to queries and keys, not to values (DETR, section A.3).

    Parameters have names and shapes of ``torch.nn.MultiheadAttention``.

    Args:
        width: model width D.
        num_heads: number of heads, a divisor of ``width``.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_BND: Tensor, position_BND: Tensor, attention_mask_NN: Tensor | None = None) -> Tensor:
        """Attend among N tokens.

        Args:
            x_BND: tokens ``[B, N, D]``.
            position_BND: position embedding, ``[B, N, D]`` or ``[1, N, D]``.
            attention_mask_NN: boolean ``[N, N]``, True where the query (row) attends to the key (column); None: to all.

        Returns:
            ``[B, N, D]``.
        """
        width = x_BND.shape[-1]
        query_key_weight, value_weight = self.in_proj_weight.split([2 * width, width])
        query_key_bias, value_bias = self.in_proj_bias.split([2 * width, width])
        query_key = F.linear(x_BND + position_BND, query_key_weight, query_key_bias)
        value = F.linear(x_BND, value_weight, value_bias)
        query, key = query_key.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        value = value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask_NN)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """The logit of ``x``. ``x`` and ``1 - x`` are clamped to at least ``eps``."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
