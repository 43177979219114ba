"""Reparameterisation for inference: BatchNorm is folded into convolutions, RepVGG branches are merged.

BatchNorm with fixed statistics scales and shifts each channel, so it can be part of the convolution's kernel and bias.
Two parallel convolutions equal one whose kernel is their sum (RepVGG, Ding et al., CVPR 2021, section 3.3).
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
from rtdetrv2_train.model.inference_decoder import InferenceDecoder
from rtdetrv2_train.model.layers import ConvNorm, FrozenBatchNorm2d

Norm = nn.BatchNorm2d | nn.SyncBatchNorm | FrozenBatchNorm2d


class ReparameterisedDetector(RTDETRv2):
    """A detector without BatchNorm, for inference only: see :func:`fuse`."""

    decoder: InferenceDecoder  # type: ignore[assignment]

    def train(self, mode: bool = True) -> ReparameterisedDetector:
        """Evaluation mode.

        Raises:
            RuntimeError: for training mode; without BatchNorm the model would train differently.
        """
        if mode:
            raise RuntimeError("a reparameterised model cannot be trained: train the original model and fuse again")
        super().train(False)
        return self

    def bake(self, height: int, width: int) -> None:
        """Make position embeddings and anchors of one image size constants, and take no other size from now on."""
        with torch.no_grad():
            self(torch.zeros(1, self.architecture.in_channels, height, width, device=next(self.parameters()).device))
        self.encoder.positions.bake()
        self.decoder.anchors.bake()


def fuse(model: RTDETRv2) -> ReparameterisedDetector:
    """A reparameterised copy of a detector: same predictions, fewer operations.

    Every RepVGG block becomes one 3x3 convolution with bias. Every other convolution and its BatchNorm become one
    convolution with bias. The decoder becomes an :class:`InferenceDecoder` of the layers in use. The names of the state
    dict change, so load weights before.

    Args:
        model: a trained detector. It is not changed.

    Returns:
        a detector in evaluation mode without gradients.
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
    copied.__class__ = ReparameterisedDetector
    fused = cast(ReparameterisedDetector, copied)
    fused.decoder = InferenceDecoder(copied.decoder)
    return fused.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _fold_into(block: nn.Module, norm: Norm) -> None:
    """Fold a block's BatchNorm into its ``conv``, which may follow a padding layer."""
    conv = block.get_submodule("conv")
    if isinstance(conv, nn.Sequential):
        conv[-1] = _fused(cast(nn.Conv2d, conv[-1]), norm)
    else:
        block.conv = _fused(cast(nn.Conv2d, conv), norm)


def _fused(conv: nn.Conv2d, norm: Norm) -> nn.Conv2d:
    weight, bias = _kernel_and_bias(conv, norm)
    return _like(conv, weight, bias)


def _fused_sum(conv_3x3: ConvNorm, conv_1x1: ConvNorm) -> nn.Conv2d:
    """One 3x3 convolution that equals a 3x3 and a 1x1 in parallel. The 1x1 kernel is padded with zeros to 3x3."""
    weight, bias = _kernel_and_bias(conv_3x3.conv, conv_3x3.norm)
    weight_1x1, bias_1x1 = _kernel_and_bias(conv_1x1.conv, conv_1x1.norm)
    return _like(conv_3x3.conv, weight + F.pad(weight_1x1, (1, 1, 1, 1)), bias + bias_1x1)


def _kernel_and_bias(conv: nn.Conv2d, norm: Norm) -> tuple[Tensor, Tensor]:
    """Kernel ``[C', C, k, k]`` and bias ``[C']`` of convolution and BatchNorm together, in float64."""
    weight, bias, mean, variance = (
        cast(Tensor, getattr(norm, name)).detach().double()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight * (variance + norm.eps).rsqrt()
    return conv.weight.detach().double() * scale[:, None, None, None], bias - mean * scale


def _like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the settings of ``conv``, but this kernel and bias."""
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
