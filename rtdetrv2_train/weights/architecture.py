"""What kind of RT-DETRv2 a state dict belongs to, read off its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rtdetrv2_train.errors import UserError

_HEADS = 8  # of every published model; shapes alone do not tell heads from points
_LAYER = "decoder.decoder.layers.0."


@dataclass(frozen=True)
class ArchitectureFacts:
    """The shape of a model.

    Attributes:
        backbone: ``resnet_vd`` or ``hgnetv2``.
        backbone_block: ``basic`` or ``bottleneck`` for ResNet-vd, ``hg`` for HGNetv2.
        backbone_blocks: number of blocks of each stage.
        backbone_layers: convolutions of a block of each stage.
        backbone_mid_channels: channels inside the blocks of each stage.
        backbone_channels: channels that each stage puts out.
        stem_channels: channels inside the stem and after it.
        trained_backbone_norms: whether the norms of the backbone count batches, as those that train do.
        encoder_width: width of the hybrid encoder.
        encoder_layers: transformer layers of the encoder.
        encoder_feedforward: width inside their feed-forward part.
        csp_expansion: inner width of the CSP blocks as a share of the encoder's width.
        csp_blocks: RepVGG blocks in a CSP block.
        decoder_width: width of the decoder.
        decoder_layers: layers of the decoder.
        decoder_feedforward: width inside their feed-forward part.
        num_heads: attention heads of the decoder.
        encoder_heads: attention heads of the encoder; not visible in weights: taken to be the decoder's.
        num_points: sampling points of a head for each level.
        num_classes: number of classes.
        has_denoising: whether there is an embedding for denoising queries.
        num_queries: not visible in weights: the published models' unless a configuration says otherwise.
        method: sampling method, ``default`` or ``discrete``; not visible in weights either.
    """

    backbone: str
    backbone_block: str
    backbone_blocks: tuple[int, ...]
    backbone_layers: tuple[int, ...]
    backbone_mid_channels: tuple[int, ...]
    backbone_channels: tuple[int, ...]
    stem_channels: tuple[int, int]
    trained_backbone_norms: bool
    encoder_width: int
    encoder_layers: int
    encoder_feedforward: int
    csp_expansion: float
    csp_blocks: int
    decoder_width: int
    decoder_layers: int
    decoder_feedforward: int
    num_heads: int
    encoder_heads: int
    num_points: tuple[int, ...]
    num_classes: int
    has_denoising: bool
    num_queries: int = 300
    method: str = "default"


def infer_architecture(state_dict: Mapping[str, Tensor]) -> ArchitectureFacts:
    """The facts that names and shapes give away.

    Args:
        state_dict: a whole detector's, under the reference names. Without ``num_points_scale`` the sampling points
            are taken to be shared evenly among the levels.

    Raises:
        UserError: if this is no RT-DETRv2 detector.
    """
    names = _Names(state_dict)
    width = names.shape("encoder.input_proj.0.conv.weight")[0]
    heads, points = _heads_and_points(names)
    return ArchitectureFacts(
        **_backbone(names),
        trained_backbone_norms=any(k.startswith("backbone.") and k.endswith("num_batches_tracked") for k in state_dict),
        encoder_width=width,
        encoder_layers=names.count(r"encoder\.encoder\.0\.layers\.(\d+)\."),
        encoder_feedforward=names.shape("encoder.encoder.0.layers.0.linear1.weight", default=(0,))[0],
        csp_expansion=names.shape("encoder.fpn_blocks.0.conv1.conv.weight")[0] / width,
        csp_blocks=names.count(r"encoder\.fpn_blocks\.0\.bottlenecks\.(\d+)\."),
        decoder_width=names.shape("decoder.input_proj.0.conv.weight")[0],
        decoder_layers=names.count(r"decoder\.decoder\.layers\.(\d+)\."),
        decoder_feedforward=names.shape(f"{_LAYER}linear1.weight")[0],
        num_heads=heads,
        encoder_heads=heads,
        num_points=points,
        num_classes=names.shape("decoder.enc_score_head.weight")[0],
        has_denoising="decoder.denoising_class_embed.weight" in state_dict,
    )


def points_of_scale(num_points_scale: Tensor) -> tuple[int, ...]:
    """Sampling points of each level, from a vector ``[P]`` that holds 1 / n for each of the n points of a level."""
    scales = num_points_scale.tolist()
    points: list[int] = []
    while sum(points) < len(scales):
        points.append(max(1, round(1 / scales[sum(points)])))
    return tuple(points)


class _Names:
    """Looks up shapes and counts in a state dict."""

    def __init__(self, state_dict: Mapping[str, Tensor]) -> None:
        self.state_dict = state_dict

    def shape(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        tensor = self.state_dict.get(name)
        if tensor is None and default is not None:
            return default
        if tensor is None or not tensor.shape:
            raise UserError(f"these are not the weights of an RT-DETRv2 detector: there is no '{name}'")
        return tuple(tensor.shape)

    def count(self, pattern: str) -> int:
        return len({match[1] for match in map(re.compile(pattern).match, self.state_dict) if match})


def _heads_and_points(names: _Names) -> tuple[int, tuple[int, ...]]:
    total = names.shape(f"{_LAYER}cross_attn.attention_weights.weight")[0]
    scale = names.state_dict.get(f"{_LAYER}cross_attn.num_points_scale")
    if scale is not None and len(scale):
        return total // len(scale), points_of_scale(scale)
    levels = names.count(r"decoder\.input_proj\.(\d+)\.")
    per_head = total // _HEADS
    if per_head % levels:
        raise UserError(
            f"the weights have {per_head} sampling points for {levels} levels and no "
            f"'{_LAYER}cross_attn.num_points_scale' that says how they are shared"
        )
    return _HEADS, (per_head // levels,) * levels


def _backbone(names: _Names) -> dict[str, Any]:
    if "backbone.stem.stem1.conv.weight" in names.state_dict:
        return _hgnet(names)
    return _resnet(names)


def _resnet(names: _Names) -> dict[str, Any]:
    stages = range(names.count(r"backbone\.res_layers\.(\d+)\."))
    block = "backbone.res_layers.{}.blocks.0.branch2{}.conv.weight"
    last = "c" if block.format(0, "c") in names.state_dict else "b"
    return {
        "backbone": "resnet_vd",
        "backbone_block": "bottleneck" if last == "c" else "basic",
        "backbone_blocks": tuple(names.count(rf"backbone\.res_layers\.{stage}\.blocks\.(\d+)\.") for stage in stages),
        "backbone_layers": (3 if last == "c" else 2,) * len(stages),
        "backbone_mid_channels": tuple(names.shape(block.format(stage, "a"))[0] for stage in stages),
        "backbone_channels": tuple(names.shape(block.format(stage, last))[0] for stage in stages),
        "stem_channels": (
            names.shape("backbone.conv1.conv1_1.conv.weight")[0],
            names.shape("backbone.conv1.conv1_3.conv.weight")[0],
        ),
    }


def _hgnet(names: _Names) -> dict[str, Any]:
    stages = range(names.count(r"backbone\.stages\.(\d+)\."))
    block = "backbone.stages.{}.blocks.0."

    def mid_channels(stage: int) -> int:
        layer = f"{block.format(stage)}layers.0"
        plain = names.shape(f"{layer}.conv.weight", default=(0,))[0]
        return plain or names.shape(f"{layer}.conv1.conv.weight")[0]

    return {
        "backbone": "hgnetv2",
        "backbone_block": "hg",
        "backbone_blocks": tuple(names.count(rf"backbone\.stages\.{stage}\.blocks\.(\d+)\.") for stage in stages),
        "backbone_layers": tuple(
            names.count(rf"backbone\.stages\.{stage}\.blocks\.0\.layers\.(\d+)\.") for stage in stages
        ),
        "backbone_mid_channels": tuple(mid_channels(stage) for stage in stages),
        "backbone_channels": tuple(
            names.shape(f"{block.format(stage)}aggregation_excitation_conv.conv.weight")[0] for stage in stages
        ),
        "stem_channels": (
            names.shape("backbone.stem.stem1.conv.weight")[0],
            names.shape("backbone.stem.stem4.conv.weight")[0],
        ),
    }
