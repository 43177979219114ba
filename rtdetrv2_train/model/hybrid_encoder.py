"""The hybrid encoder: self-attention on the coarsest scale, convolutional fusion across scales (RT-DETR, section 4.2).

Shape suffixes: B batch, C channels, H and W height and width, N tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.model.gradient_checkpointing import Block
from rtdetrv2_train.model.layers import ConvNorm, SelfAttention, ShapeCache, check_heads, make_activation
from rtdetrv2_train.ops.conv_norm_act import activate


def sine_cosine_positions(height: int, width: int, dim: int, temperature: float = 10000.0) -> Tensor:
    """Two-dimensional sine-cosine position embedding.

    Positions are numbered column by column, as in the authors' code, although tokens are numbered row by row. Released
    weights were trained that way; on square images it only swaps the two axes.

    Args:
        height: rows of the feature map.
        width: columns of the feature map.
        dim: model width D, a multiple of 4.
        temperature: base of the wavelengths.

    Returns:
        float32 ``[1, height * width, D]``.

    Raises:
        ValueError: if ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"the width of the encoder must be a multiple of 4 for its position embedding, not {dim}")
    frequency = 1.0 / temperature ** (torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    columns, rows = (torch.arange(side, dtype=torch.float32)[:, None] * frequency for side in (width, height))
    # broadcast, as torch.onnx writes a repeat_interleave of a length that it does not know wrongly
    columns = columns[:, None].expand(width, height, dim // 4).flatten(0, 1)
    rows = rows[None].expand(width, height, dim // 4).flatten(0, 1)
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], 1)[None]


class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward, with LayerNorm after each (post-norm).

    Args:
        width: model width D.
        num_heads: number of attention heads.
        feedforward_width: hidden width of the feed-forward part.
        activation: activation of the feed-forward part.
    """

    def __init__(self, width: int, num_heads: int, feedforward_width: int, activation: str) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, num_heads)
        self.linear1 = nn.Linear(width, feedforward_width)
        self.linear2 = nn.Linear(feedforward_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = make_activation(activation)

    def forward(self, x_BND: Tensor, position_1ND: Tensor) -> Tensor:
        """``[B, N, D]`` to ``[B, N, D]``."""
        x_BND = self.norm1(x_BND + self.self_attn(x_BND, position_1ND))
        return self.norm2(x_BND + self.linear2(self.activation(self.linear1(x_BND))))


class RepVGGBlock(nn.Module):
    """Parallel 3x3 and 1x1 convolutions, which reparameterisation merges into one (RepVGG, Ding et al., CVPR 2021)."""

    def __init__(self, channels: int, activation: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)
        self.act = make_activation(activation)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, C, H, W]``."""
        # in place, as the backward pass of BatchNorm does not need its output
        return activate(self.act, self.conv1(x_BCHW).add_(self.conv2(x_BCHW)))


class CSPBlock(Block):
    """Cross-stage partial block: one branch through RepVGG blocks, one around them.

    Args:
        in_channels: channels of the concatenated input.
        out_channels: channels of the output.
        num_blocks: number of RepVGG blocks.
        expansion: hidden channels as a fraction of ``out_channels``.
        activation: activation throughout.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, expansion: float, activation: str) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNorm(in_channels, hidden, 1, activation=activation)
        self.conv2 = ConvNorm(in_channels, hidden, 1, activation=activation)
        self.bottlenecks = nn.Sequential(*[RepVGGBlock(hidden, activation) for _ in range(num_blocks)])
        self.conv3 = (
            nn.Identity() if hidden == out_channels else ConvNorm(hidden, out_channels, 1, activation=activation)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """``[B, in_channels, H, W]`` to ``[B, out_channels, H, W]``."""
        return self.conv3(self.bottlenecks(self.conv1(x_BCHW)) + self.conv2(x_BCHW))


class _EncoderLayers(nn.Module):
    """Transformer layers under the name ``layers``, as released checkpoints have them."""

    def __init__(self, layers: list[TransformerEncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x_BND: Tensor, position_1ND: Tensor) -> Tensor:
        for layer in self.layers:
            x_BND = layer(x_BND, position_1ND)
        return x_BND


@dataclass(frozen=True)
class HybridEncoderConfig:
    """Shape of a hybrid encoder.

    Attributes:
        width: model width D.
        num_heads: heads of the transformer layers.
        feedforward_width: hidden width of their feed-forward part.
        num_layers: number of transformer layers on the coarsest map.
        expansion: hidden channels of the fusion blocks as a fraction of the width.
        num_fusion_blocks: RepVGG blocks in each fusion block.
    """

    width: int = 256
    num_heads: int = 8
    feedforward_width: int = 1024
    num_layers: int = 1
    expansion: float = 1.0
    num_fusion_blocks: int = 3

    def __post_init__(self) -> None:
        check_heads("encoder", self.width, self.num_heads)


class HybridEncoder(nn.Module):
    """Fuses backbone features of strides 8, 16 and 32 into three maps of one width.

    Args:
        config: shape of the encoder.
        in_channels: channels of the backbone's features, finest first.
    """

    def __init__(self, config: HybridEncoderConfig, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.width = width = config.width
        num_steps = len(in_channels) - 1

        def fusion() -> CSPBlock:
            return CSPBlock(2 * width, width, config.num_fusion_blocks, config.expansion, "silu")

        self.input_proj = nn.ModuleList(ConvNorm(channels, width, 1) for channels in in_channels)
        layers = [
            TransformerEncoderLayer(width, config.num_heads, config.feedforward_width, "gelu")
            for _ in range(config.num_layers)
        ]
        self.encoder = nn.ModuleList([_EncoderLayers(layers)])
        self.lateral_convs = nn.ModuleList(ConvNorm(width, width, 1, activation="silu") for _ in range(num_steps))
        self.fpn_blocks = nn.ModuleList(fusion() for _ in range(num_steps))
        self.downsample_convs = nn.ModuleList(ConvNorm(width, width, 3, 2, "silu") for _ in range(num_steps))
        self.pan_blocks = nn.ModuleList(fusion() for _ in range(num_steps))
        self.positions: ShapeCache[Tensor] = ShapeCache()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Fuse feature maps.

        Args:
            features: ``[B, C, H, W]`` per level, finest first, each half the size of the one before.

        Returns:
            ``[B, D, H, W]`` per level, in the same sizes and order.
        """
        maps = [project(feature) for project, feature in zip(self.input_proj, features, strict=True)]
        height, width = maps[-1].shape[2:]
        tokens_BND = maps[-1].flatten(2).transpose(1, 2)
        tokens_BND = self.encoder[0](tokens_BND, self._position(height, width, tokens_BND.device))
        maps[-1] = tokens_BND.transpose(1, 2).unflatten(2, (height, width))  # in channels-last layout

        # top-down (FPN): from the coarsest map to the finest
        fused = [maps[-1]]
        for lateral, fusion, finer in zip(self.lateral_convs, self.fpn_blocks, reversed(maps[:-1]), strict=True):
            fused[0] = lateral(fused[0])
            enlarged = F.interpolate(fused[0], scale_factor=2.0, mode="nearest")
            fused.insert(0, fusion(torch.cat([enlarged, finer], 1)))

        # bottom-up (PAN): from the finest map to the coarsest
        outputs = [fused[0]]
        for downsample, fusion, coarser in zip(self.downsample_convs, self.pan_blocks, fused[1:], strict=True):
            outputs.append(fusion(torch.cat([downsample(outputs[-1]), coarser], 1)))
        return outputs

    def _position(self, height: int, width: int, device: torch.device) -> Tensor:
        return self.positions.get(
            (height, width, device), lambda: sine_cosine_positions(height, width, self.width).to(device)
        )
