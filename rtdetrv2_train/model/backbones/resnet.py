"""ResNet-vd backbones: three-convolution stem, average-pooled shortcuts (He et al., arXiv 1812.01187, section 4).

Shape suffixes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.model.gradient_checkpointing import Block
from rtdetrv2_train.model.layers import ConvNorm
from rtdetrv2_train.ops.conv_norm_act import apply


@dataclass(frozen=True)
class ResNetVDConfig:
    """Shape of a ResNet-vd.

    Attributes:
        blocks: blocks of each stage: (2, 2, 2, 2) for ResNet-18, (3, 4, 6, 3) for 34 and 50, (3, 4, 23, 3) for 101.
        bottleneck: blocks of three convolutions instead of two, as in ResNet-50 and larger.
        width: channels of the first stage (64 in the paper); later stages have 2, 4 and 8 times as many.
        freeze_stem: do not train the stem.
        freeze_batchnorm: fix the statistics and affine parameters of every BatchNorm.
    """

    kind: ClassVar[str] = "resnet_vd"
    blocks: tuple[int, int, int, int]
    bottleneck: bool
    width: int = 64
    freeze_stem: bool = False
    freeze_batchnorm: bool = False

    @property
    def stem_channels(self) -> tuple[int, int]:
        """Channels inside the stem and after it."""
        return self.width // 2, self.width

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Output channels of each of the four stages."""
        return tuple((4 if self.bottleneck else 1) * self.width * 2**stage for stage in range(len(self.blocks)))


class _Block(Block):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with ``bottleneck``."""

    def __init__(
        self, in_channels: int, width: int, stride: int, bottleneck: bool, project: bool, freeze_batchnorm: bool
    ) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        self.branch2a: ConvNorm
        if bottleneck:
            self.branch2a = ConvNorm(in_channels, width, 1, 1, "relu", freeze_batchnorm)
            self.branch2b = ConvNorm(width, width, 3, stride, "relu", freeze_batchnorm)
            self.branch2c: ConvNorm | None = ConvNorm(width, out_channels, 1, 1, None, freeze_batchnorm)
        else:
            self.branch2a = ConvNorm(in_channels, width, 3, stride, "relu", freeze_batchnorm)
            self.branch2b = ConvNorm(width, width, 3, 1, None, freeze_batchnorm)
            self.branch2c = None
        self.short: nn.Module | None = None
        if project and stride == 2:
            conv = ConvNorm(in_channels, out_channels, 1, 1, None, freeze_batchnorm)
            self.short = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2, 2, ceil_mode=True), conv=conv))
        elif project:
            self.short = ConvNorm(in_channels, out_channels, 1, stride, None, freeze_batchnorm)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual = self.branch2b(self.branch2a(x_BCHW))
        if self.branch2c is not None:
            residual = self.branch2c(residual)
        shortcut = x_BCHW if self.short is None else self.short(x_BCHW)
        return F.relu(residual.add_(shortcut), inplace=True)  # in place: BatchNorm does not need its output


class _Stem(Block, nn.Sequential):
    """Three convolutions; the first has stride 2."""


class _Stage(nn.Module):
    """Blocks at one stride; the first one changes size and channels."""

    def __init__(
        self, in_channels: int, width: int, num_blocks: int, stride: int, bottleneck: bool, freeze_batchnorm: bool
    ) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        self.blocks = nn.ModuleList(
            _Block(
                in_channels if index == 0 else out_channels,
                width,
                stride if index == 0 else 1,
                bottleneck,
                project=index == 0,
                freeze_batchnorm=freeze_batchnorm,
            )
            for index in range(num_blocks)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return x_BCHW


class ResNetVD(nn.Module):
    """ResNet-vd with features at strides 8, 16 and 32.

    Args:
        config: shape of the backbone.
        image_channels: of the images. Other than 3, the first convolution is trained even where the stem is frozen.
    """

    first_convolution = "conv1.conv1_1.conv"

    def __init__(self, config: ResNetVDConfig, image_channels: int = 3) -> None:
        super().__init__()
        inside, in_channels = config.stem_channels
        stem: OrderedDict[str, nn.Module] = OrderedDict(
            conv1_1=ConvNorm(image_channels, inside, 3, 2, "relu", config.freeze_batchnorm),
            conv1_2=ConvNorm(inside, inside, 3, 1, "relu", config.freeze_batchnorm),
            conv1_3=ConvNorm(inside, in_channels, 3, 1, "relu", config.freeze_batchnorm),
        )
        self.conv1 = _Stem(stem)
        self.conv1.requires_grad_(not config.freeze_stem)
        if image_channels != 3:
            self.get_submodule(self.first_convolution).requires_grad_(True)
        self.res_layers = nn.ModuleList()
        for index, num_blocks in enumerate(config.blocks):
            stride = 1 if index == 0 else 2
            width = config.width * 2**index
            stage = _Stage(in_channels, width, num_blocks, stride, config.bottleneck, config.freeze_batchnorm)
            self.res_layers.append(stage)
            in_channels = config.stage_channels[index]
        self.out_channels = config.stage_channels[1:]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Features of float images in [0, 1].

        Returns:
            ``[B, C, H / s, W / s]`` for the strides s = 8, 16, 32; ``out_channels`` has the numbers of channels.
        """
        x_BCHW = apply(partial(F.max_pool2d, kernel_size=3, stride=2, padding=1), self.conv1(images_BCHW))
        features = []
        for stage in self.res_layers:
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return features[1:]
