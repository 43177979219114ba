"""HGNetv2 backbones L, X and H, as PaddleDetection's PP-HGNetV2 defines them.

A block runs several convolutions in sequence, concatenates all outputs, and reduces their channels.
Shape suffixes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.model.gradient_checkpointing import Block
from rtdetrv2_train.model.layers import FrozenBatchNorm2d


@dataclass(frozen=True)
class StageShape:
    """Shape of one stage.

    Attributes:
        mid_channels: channels of the convolutions inside a block.
        out_channels: output channels of the stage.
        blocks: number of blocks.
        downsample: halve height and width first.
        light: replace each convolution by a 1x1 and a depthwise one.
        kernel_size: side of the square kernels.
        layers: convolutions in a block.
    """

    mid_channels: int
    out_channels: int
    blocks: int
    downsample: bool = True
    light: bool = True
    kernel_size: int = 5
    layers: int = 6


@dataclass(frozen=True)
class HGNetV2Config:
    """Shape of an HGNetv2.

    Attributes:
        stem_channels: channels inside the stem and after it.
        stages: the four stages; the first one keeps stride 4.
        freeze_stem: do not train the stem.
        freeze_batchnorm: fix the statistics and affine parameters of every BatchNorm.
    """

    kind: ClassVar[str] = "hgnetv2"
    stem_channels: tuple[int, int]
    stages: tuple[StageShape, ...]
    freeze_stem: bool = False
    freeze_batchnorm: bool = False

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(stage.blocks for stage in self.stages)

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(stage.out_channels for stage in self.stages)


class _ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, and ReLU unless ``activation`` is False.

    An even kernel has no centre, so it is padded on the right and at the bottom only.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        frozen_batchnorm: bool,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
        self.conv: nn.Conv2d | nn.Sequential = (
            conv if kernel_size % 2 else nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)
        )
        self.bn = FrozenBatchNorm2d(out_channels) if frozen_batchnorm else nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if isinstance(self.bn, FrozenBatchNorm2d):
            padding, conv = self.conv if isinstance(self.conv, nn.Sequential) else (nn.Identity(), self.conv)
            x_BCHW = self.bn.after(cast(nn.Conv2d, conv), padding(x_BCHW))
        else:
            x_BCHW = self.bn(self.conv(x_BCHW))
        return F.relu(x_BCHW, inplace=True) if self.activation else x_BCHW


class _LightConvNorm(nn.Module):
    """A 1x1 (pointwise) convolution, then a depthwise one."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, frozen_batchnorm: bool) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(in_channels, out_channels, 1, frozen_batchnorm, activation=False)
        self.conv2 = _ConvNorm(out_channels, out_channels, kernel_size, frozen_batchnorm, groups=out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv2(self.conv1(x_BCHW))


class _Stem(Block):
    """Stem to stride 4. One branch is max-pooled, the other convolved."""

    def __init__(self, image_channels: int, mid_channels: int, out_channels: int, freeze_batchnorm: bool) -> None:
        super().__init__()
        self.stem1 = _ConvNorm(image_channels, mid_channels, 3, freeze_batchnorm, stride=2)
        self.stem2a = _ConvNorm(mid_channels, mid_channels // 2, 2, freeze_batchnorm)
        self.stem2b = _ConvNorm(mid_channels // 2, mid_channels, 2, freeze_batchnorm)
        self.stem3 = _ConvNorm(2 * mid_channels, mid_channels, 3, freeze_batchnorm, stride=2)
        self.stem4 = _ConvNorm(mid_channels, out_channels, 1, freeze_batchnorm)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem1(images_BCHW)
        pooled_BCHW = F.max_pool2d(F.pad(x_BCHW, (0, 1, 0, 1)), kernel_size=2, stride=1)
        convolved_BCHW = self.stem2b(self.stem2a(x_BCHW))
        return self.stem4(self.stem3(torch.cat([pooled_BCHW, convolved_BCHW], 1)))


class _Block(Block):
    """Convolutions in sequence whose outputs are concatenated; with ``residual`` the input is added."""

    def __init__(self, in_channels: int, shape: StageShape, residual: bool, freeze_batchnorm: bool) -> None:
        super().__init__()
        layer = _LightConvNorm if shape.light else _ConvNorm
        mid, out = shape.mid_channels, shape.out_channels
        self.layers = nn.ModuleList(
            layer(in_channels if index == 0 else mid, mid, shape.kernel_size, freeze_batchnorm)
            for index in range(shape.layers)
        )
        self.aggregation_squeeze_conv = _ConvNorm(in_channels + shape.layers * mid, out // 2, 1, freeze_batchnorm)
        self.aggregation_excitation_conv = _ConvNorm(out // 2, out, 1, freeze_batchnorm)
        self.residual = residual

    def forward(self, x_BCHW: Tensor) -> Tensor:
        outputs = [x_BCHW]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        aggregated_BCHW = self.aggregation_excitation_conv(self.aggregation_squeeze_conv(torch.cat(outputs, 1)))
        return aggregated_BCHW + x_BCHW if self.residual else aggregated_BCHW


class _Stage(nn.Module):
    """Blocks at one stride; all but the first have a residual connection."""

    def __init__(self, in_channels: int, shape: StageShape, freeze_batchnorm: bool) -> None:
        super().__init__()
        self.downsample: _ConvNorm | None = None
        if shape.downsample:
            self.downsample = _ConvNorm(
                in_channels, in_channels, 3, freeze_batchnorm, stride=2, groups=in_channels, activation=False
            )
        self.blocks = nn.Sequential(
            *(
                _Block(in_channels if index == 0 else shape.out_channels, shape, index > 0, freeze_batchnorm)
                for index in range(shape.blocks)
            )
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.blocks(x_BCHW if self.downsample is None else self.downsample(x_BCHW))


class HGNetV2(nn.Module):
    """HGNetv2 with features at strides 8, 16 and 32.

    Args:
        config: shape of the backbone.
        image_channels: of the images. Other than 3, the first convolution is trained even where the stem is frozen.
    """

    first_convolution = "stem.stem1.conv"

    def __init__(self, config: HGNetV2Config, image_channels: int = 3) -> None:
        super().__init__()
        mid_channels, in_channels = config.stem_channels
        self.stem = _Stem(image_channels, mid_channels, in_channels, config.freeze_batchnorm)
        self.stem.requires_grad_(not config.freeze_stem)
        if image_channels != 3:
            self.get_submodule(self.first_convolution).requires_grad_(True)
        self.stages = nn.ModuleList()
        for shape in config.stages:
            self.stages.append(_Stage(in_channels, shape, config.freeze_batchnorm))
            in_channels = shape.out_channels
        self.out_channels = config.stage_channels[1:]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Features of float images in [0, 1].

        Returns:
            ``[B, C, H / s, W / s]`` for the strides s = 8, 16, 32; ``out_channels`` has the numbers of channels.
        """
        x_BCHW = self.stem(images_BCHW)
        features = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return features[1:]
