"""ResNet-vd backbones: three-convolution stem, average-pooled shortcuts (He et al., arXiv 1812.01187, section 4).

Shape suffixes: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.model.layers import ConvNorm
from rtdetrv2_train.model.recomputation import Block, apply

BLOCKS_OF_DEPTH = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _Block(Block):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with ``bottleneck``."""

    def __init__(
        self, in_channels: int, width: int, stride: int, bottleneck: bool, project: bool, frozen_norms: bool
    ) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        self.branch2a: ConvNorm
        if bottleneck:
            self.branch2a = ConvNorm(in_channels, width, 1, 1, "relu", frozen_norms)
            self.branch2b = ConvNorm(width, width, 3, stride, "relu", frozen_norms)
            self.branch2c: ConvNorm | None = ConvNorm(width, out_channels, 1, 1, None, frozen_norms)
        else:
            self.branch2a = ConvNorm(in_channels, width, 3, stride, "relu", frozen_norms)
            self.branch2b = ConvNorm(width, width, 3, 1, None, frozen_norms)
            self.branch2c = None
        self.short: nn.Module | None = None
        if project and stride == 2:
            conv = ConvNorm(in_channels, out_channels, 1, 1, None, frozen_norms)
            self.short = nn.Sequential(OrderedDict(pool=nn.AvgPool2d(2, 2, ceil_mode=True), conv=conv))
        elif project:
            self.short = ConvNorm(in_channels, out_channels, 1, stride, None, frozen_norms)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual = self.branch2b(self.branch2a(x_BCHW))
        if self.branch2c is not None:
            residual = self.branch2c(residual)
        shortcut = x_BCHW if self.short is None else self.short(x_BCHW)
        return F.relu(residual.add_(shortcut), inplace=True)  # no norm keeps its output for the gradient


class _Stem(Block, nn.Sequential):
    """Three convolutions, at half the size of the images."""


class _Stage(nn.Module):
    """Blocks at one stride; the first one changes size and channels."""

    def __init__(
        self, in_channels: int, width: int, num_blocks: int, stride: int, bottleneck: bool, frozen_norms: bool
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
                frozen_norms=frozen_norms,
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
        depth: 18, 34, 50 or 101; sets the number of blocks, and bottleneck blocks from 50 on.
        width: channels of the first stage (64 in the paper); later stages have 2, 4 and 8 times as many.
        blocks: number of blocks of the four stages, instead of those of ``depth``.
        frozen_stem: do not train the stem.
        frozen_norms: fix the statistics and affine parameters of all norms.

    Raises:
        ValueError: for another depth.
    """

    def __init__(
        self,
        depth: int = 50,
        width: int = 64,
        blocks: Sequence[int] | None = None,
        frozen_stem: bool = False,
        frozen_norms: bool = False,
    ) -> None:
        super().__init__()
        if depth not in BLOCKS_OF_DEPTH:
            raise ValueError(f"there is no ResNet-vd of depth {depth}: use one of {sorted(BLOCKS_OF_DEPTH)}")
        blocks = blocks or BLOCKS_OF_DEPTH[depth]
        bottleneck = depth >= 50
        stem: OrderedDict[str, nn.Module] = OrderedDict(
            conv1_1=ConvNorm(3, width // 2, 3, 2, "relu", frozen_norms),
            conv1_2=ConvNorm(width // 2, width // 2, 3, 1, "relu", frozen_norms),
            conv1_3=ConvNorm(width // 2, width, 3, 1, "relu", frozen_norms),
        )
        self.conv1 = _Stem(stem)
        self.conv1.requires_grad_(not frozen_stem)

        in_channels = width
        out_channels = []
        self.res_layers = nn.ModuleList()
        for index, num_blocks in enumerate(blocks):
            stage_width = width * 2**index
            stride = 1 if index == 0 else 2
            self.res_layers.append(_Stage(in_channels, stage_width, num_blocks, stride, bottleneck, frozen_norms))
            in_channels = 4 * stage_width if bottleneck else stage_width
            out_channels.append(in_channels)
        self.out_channels = out_channels[1:]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_B3HW: Tensor) -> list[Tensor]:
        """Features of float images in [0, 1].

        Returns:
            ``[B, C, H / s, W / s]`` for the strides s = 8, 16, 32, channels as in ``out_channels``.
        """
        x_BCHW = apply(partial(F.max_pool2d, kernel_size=3, stride=2, padding=1), self.conv1(images_B3HW))
        features = []
        for stage in self.res_layers:
            x_BCHW = stage(x_BCHW)
            features.append(x_BCHW)
        return features[1:]
