"""The architecture that a state dict belongs to, read off its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.architecture import Architecture, BackboneConfig
from rtdetrv2_train.model.backbones.hgnetv2 import HGNetV2, HGNetV2Config, StageShape
from rtdetrv2_train.model.backbones.resnet import ResNetVD, ResNetVDConfig
from rtdetrv2_train.model.decoder import DecoderConfig
from rtdetrv2_train.model.hybrid_encoder import HybridEncoderConfig

_HEADS = 8  # of every published model; shapes alone do not tell heads from points
_IMAGE_SIZE = (640, 640)  # likewise
_LAYER = "decoder.decoder.layers.0."
_FIRST_RESNET, _FIRST_HGNET = (f"backbone.{kind.first_convolution}.weight" for kind in (ResNetVD, HGNetV2))


def architecture_from_weights(state_dict: Mapping[str, Tensor]) -> Architecture:
    """The architecture that names and shapes give away.

    What weights do not show is as in the published models: the image size, the number of queries, how points are
    sampled, the heads of the encoder (taken to be the decoder's), the decoder layers used in evaluation.

    Args:
        state_dict: a whole detector's, under the reference names. Without ``num_points_scale`` the sampling points
            are taken to be shared evenly among the levels.

    Raises:
        UserError: if this is no RT-DETRv2 detector.
    """
    names = _Names(state_dict)
    width = names.shape("encoder.input_proj.0.conv.weight")[0]
    heads, points = _heads_and_points(names)
    return Architecture(
        backbone=_hgnet(names) if _FIRST_HGNET in state_dict else _resnet(names),
        encoder=HybridEncoderConfig(
            width=width,
            num_heads=heads,
            feedforward_width=names.shape("encoder.encoder.0.layers.0.linear1.weight", default=(0,))[0],
            num_layers=names.count(r"encoder\.encoder\.0\.layers\.(\d+)\."),
            expansion=names.shape("encoder.fpn_blocks.0.conv1.conv.weight")[0] / width,
            num_fusion_blocks=names.count(r"encoder\.fpn_blocks\.0\.bottlenecks\.(\d+)\."),
        ),
        decoder=DecoderConfig(
            width=names.shape("decoder.input_proj.0.conv.weight")[0],
            num_layers=names.count(r"decoder\.decoder\.layers\.(\d+)\."),
            num_heads=heads,
            feedforward_width=names.shape(f"{_LAYER}linear1.weight")[0],
            num_points=points,
            num_denoising=100 if "decoder.denoising_class_embed.weight" in state_dict else 0,
        ),
        num_classes=names.shape("decoder.enc_score_head.weight")[0],
        image_size=_IMAGE_SIZE,
        in_channels=names.shape(_FIRST_HGNET if _FIRST_HGNET in state_dict else _FIRST_RESNET)[1],
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

    @property
    def has_frozen_batchnorm(self) -> bool:
        """Whether the backbone's BatchNorm does not count batches, as those that train do."""
        return not any(
            name.startswith("backbone.") and name.endswith("num_batches_tracked") for name in self.state_dict
        )


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


def _resnet(names: _Names) -> BackboneConfig:
    first, second, third, fourth = (
        names.count(rf"backbone\.res_layers\.{stage}\.blocks\.(\d+)\.") for stage in range(4)
    )
    return ResNetVDConfig(
        blocks=(first, second, third, fourth),
        bottleneck="backbone.res_layers.0.blocks.0.branch2c.conv.weight" in names.state_dict,
        width=names.shape("backbone.conv1.conv1_3.conv.weight")[0],
        freeze_batchnorm=names.has_frozen_batchnorm,
    )


def _hgnet(names: _Names) -> BackboneConfig:
    inside, after = (names.shape(f"backbone.stem.{conv}.conv.weight")[0] for conv in ("stem1", "stem4"))
    stages = tuple(_hgnet_stage(names, stage) for stage in range(names.count(r"backbone\.stages\.(\d+)\.")))
    return HGNetV2Config((inside, after), stages, freeze_batchnorm=names.has_frozen_batchnorm)


def _hgnet_stage(names: _Names, stage: int) -> StageShape:
    block = f"backbone.stages.{stage}.blocks.0"
    light = f"{block}.layers.0.conv2.conv.weight" in names.state_dict
    kernel = names.shape(f"{block}.layers.0.{'conv2.' if light else ''}conv.weight")
    return StageShape(
        mid_channels=kernel[0],
        out_channels=names.shape(f"{block}.aggregation_excitation_conv.conv.weight")[0],
        blocks=names.count(rf"backbone\.stages\.{stage}\.blocks\.(\d+)\."),
        downsample=f"backbone.stages.{stage}.downsample.conv.weight" in names.state_dict,
        light=light,
        kernel_size=kernel[-1],
        layers=names.count(rf"backbone\.stages\.{stage}\.blocks\.0\.layers\.(\d+)\."),
    )
