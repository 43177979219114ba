"""A detector for inference with every norm folded into the convolution before it.

A norm with fixed statistics is a scale and a shift of each channel, so it can be part of the convolution's kernel and
bias; two convolutions side by side are one whose kernel is their sum (RepVGG, Ding et al., CVPR 2021, section 3.3).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.hybrid_encoder import RepVGGBlock
from rtdetrv2_train.model.layers import ConvNorm, FrozenBatchNorm2d

Norm = nn.BatchNorm2d | nn.SyncBatchNorm | FrozenBatchNorm2d


class FusedDetector(RTDETRv2):
    """A detector without norms after its convolutions, for inference only: see :func:`fuse`."""

    def train(self, mode: bool = True) -> FusedDetector:
        """Evaluation mode.

        Raises:
            RuntimeError: for training mode; without its norms the model would learn something else.
        """
        if mode:
            raise RuntimeError("a fused model cannot be trained: train the model that it was made from, and fuse again")
        super().train(False)
        return self


def fuse(model: RTDETRv2) -> FusedDetector:
    """A copy of a detector that computes the same with fewer parameters and operations.

    Every RepVGG block becomes one 3x3 convolution with bias, every other convolution and its norm one convolution with
    bias. The names of the state dict change with that, so weights are loaded before fusing.

    Args:
        model: a trained detector; it is not changed.

    Returns:
        a detector in evaluation mode whose parameters need no gradient.
    """
    copied = copy.deepcopy(model)
    for name, module in list(copied.named_modules()):
        if isinstance(module, RepVGGBlock):
            parts: OrderedDict[str, nn.Module] = OrderedDict(conv=_fused_sum(module.conv1, module.conv2))
            parts["act"] = module.act
            copied.set_submodule(name, nn.Sequential(parts))
    for module in list(copied.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, Norm):
                _fold_into(module, norm)
                setattr(module, name, nn.Identity())
    copied.__class__ = FusedDetector
    return cast(FusedDetector, copied.eval().requires_grad_(False).to(memory_format=torch.channels_last))


def _fold_into(block: nn.Module, norm: Norm) -> None:
    """Fold a block's norm into its ``conv``, which may have padding before it."""
    conv = block.get_submodule("conv")
    if isinstance(conv, nn.Sequential):
        conv[-1] = _fused(cast(nn.Conv2d, conv[-1]), norm)
    else:
        block.conv = _fused(cast(nn.Conv2d, conv), norm)


def _fused(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    weight, bias = _kernel_and_bias(conv, norm)
    return _like(conv, weight, bias)


def _fused_sum(conv_3x3: ConvNorm, conv_1x1: ConvNorm) -> nn.Conv2d:
    """One 3x3 convolution for a 3x3 and a 1x1 one side by side, whose kernel is 3x3 with zeros around."""
    weight, bias = _kernel_and_bias(conv_3x3.conv, conv_3x3.norm)
    weight_1x1, bias_1x1 = _kernel_and_bias(conv_1x1.conv, conv_1x1.norm)
    return _like(conv_3x3.conv, weight + F.pad(weight_1x1, (1, 1, 1, 1)), bias + bias_1x1)


def _kernel_and_bias(conv: nn.Conv2d, norm: Norm) -> tuple[Tensor, Tensor]:
    """Kernel ``[C', C, k, k]`` and bias ``[C']`` of both together, in double precision."""
    weight, bias, mean, variance = (
        cast(Tensor, getattr(norm, name)).detach().double()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight * (variance + norm.eps).rsqrt()
    return conv.weight.detach().double() * scale[:, None, None, None], bias - mean * scale


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution as ``conv``, with another kernel and a bias."""
    fused = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        fused.weight.copy_(weight)
        cast(Tensor, fused.bias).copy_(bias)
    return cast(nn.Conv2d, fused)
