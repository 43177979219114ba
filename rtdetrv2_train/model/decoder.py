"""The decoder: query selection from the encoder, then refinement layer by layer (RT-DETRv2, section 2).

Shape suffixes: B batch, N tokens of all feature maps, Q queries (T denoising ones before them), D model width,
C classes, L layers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.deformable_attention import MultiScaleDeformableAttention, SamplingMethod
from rtdetrv2_train.model.denoising import DenoisingLayout, noisy_queries
from rtdetrv2_train.model.layers import (
    MLP,
    ConvNorm,
    SelfAttention,
    ShapeCache,
    check_heads,
    inverse_sigmoid,
    is_recorded,
)
from rtdetrv2_train.model.output import DenoisingOutput, ModelOutput
from rtdetrv2_train.types import Targets

PRIOR_PROBABILITY = 0.01  # of any class at the start (focal loss, arXiv 1708.02002, section 4.1)


def make_anchors(
    sizes: Sequence[tuple[int, int]], base_size: float = 0.05, margin: float = 0.01
) -> tuple[Tensor, Tensor]:
    """One anchor box at each position of each feature map, as logits.

    Args:
        sizes: (height, width) of each map, finest first. Anchors double in size from one map to the next.
        base_size: side of the finest anchors as a fraction of the image.
        margin: anchors are valid if each of cx, cy, w, h keeps this distance from 0 and 1.

    Returns:
        logits of cxcywh ``[1, N, 4]`` float32, Inf where not valid, and validity ``[1, N, 1]`` boolean.
    """
    # In float64, because a float32 logarithm differs between processors in its last bit.
    anchors = []
    for level, (height, width) in enumerate(sizes):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centres = torch.stack([(columns + 0.5).double() / width, (rows + 0.5).double() / height], -1)
        anchors.append(torch.cat([centres, torch.full_like(centres, base_size * 2.0**level)], -1).flatten(0, 1))
    anchors_1N4 = torch.cat(anchors)[None]
    valid_1N1 = ((anchors_1N4 > margin) & (anchors_1N4 < 1 - margin)).all(-1, keepdim=True)
    logits_1N4 = torch.log(anchors_1N4 / (1 - anchors_1N4))
    return logits_1N4.masked_fill(~valid_1N1, torch.inf).float(), valid_1N1


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder, and of its denoising queries.

    Attributes:
        width: model width D.
        num_queries: queries Q; an image with fewer positions uses fewer.
        num_layers: decoder layers L.
        num_eval_layers: layers used in evaluation, at most L; None for all.
        num_heads: attention heads.
        feedforward_width: hidden width of the feed-forward parts.
        num_points: sampling points per head for each level, finest first.
        sampling: ``default`` (bilinear) or ``discrete``.
        num_denoising: approximate number of positive denoising queries; 0 turns denoising off.
        max_denoising_boxes: boxes of an image that have denoising queries, at most; memory grows with their square.
        label_noise_ratio: see :func:`noisy_queries`.
        box_noise_scale: see :func:`noisy_queries`.

    Raises:
        UserError: if ``num_eval_layers`` is not from 1 to ``num_layers``, ``num_heads`` does not divide ``width``, or
            ``max_denoising_boxes`` is below 1.
    """

    width: int = 256
    num_queries: int = 300
    num_layers: int = 6
    num_eval_layers: int | None = None
    num_heads: int = 8
    feedforward_width: int = 1024
    num_points: tuple[int, ...] = (4, 4, 4)
    sampling: SamplingMethod = "default"
    num_denoising: int = 100
    max_denoising_boxes: int = 1000
    label_noise_ratio: float = 0.5
    box_noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.num_eval_layers is not None and not 1 <= self.num_eval_layers <= self.num_layers:
            raise UserError(f"num_eval_layers must be from 1 to {self.num_layers}, not {self.num_eval_layers}")
        check_heads("decoder", self.width, self.num_heads)
        if self.max_denoising_boxes < 1:
            raise UserError(
                f"max_denoising_boxes must be at least 1, not {self.max_denoising_boxes}: give num_denoising=0"
            )


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable cross-attention, feed-forward; LayerNorm after each (post-norm).

    Args:
        config: of the decoder.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.self_attn = SelfAttention(width, config.num_heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = MultiScaleDeformableAttention(width, config.num_heads, config.num_points, config.sampling)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, config.feedforward_width)
        self.linear2 = nn.Linear(config.feedforward_width, width)
        self.norm3 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        x_BQD: Tensor,
        position_BQD: Tensor,
        reference_BQ4: Tensor,
        values: Sequence[Tensor],
        attention_mask_QQ: Tensor | None = None,
    ) -> Tensor:
        """``[B, Q, D]`` to ``[B, Q, D]``; ``values`` are those of ``cross_attn``."""
        x_BQD = self.norm1(x_BQD + self.self_attn(x_BQD, position_BQD, attention_mask_QQ))
        x_BQD = self.norm2(x_BQD + self.cross_attn(x_BQD + position_BQD, reference_BQ4, values))
        return self.norm3(x_BQD + self.linear2(F.relu(self.linear1(x_BQD))))


class _DecoderLayers(nn.Module):
    """Layers under the name ``layers``, as released checkpoints have them."""

    def __init__(self, layers: list[DecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Decoder(nn.Module):
    """Selects queries from the encoder's maps and refines their boxes and classes.

    Args:
        config: shape of the decoder.
        in_channels: channels of the encoder's maps.
        num_classes: number of classes C.
        image_size: (height, width) whose anchors are stored in the state dict, as in released checkpoints.
    """

    anchors: Tensor
    valid_mask: Tensor

    def __init__(
        self, config: DecoderConfig, in_channels: Sequence[int], num_classes: int, image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        width, num_layers = config.width, config.num_layers
        self.num_queries = config.num_queries
        self.num_eval_layers = config.num_eval_layers or num_layers
        self.num_denoising = config.num_denoising
        self.max_denoising_boxes = config.max_denoising_boxes
        self.label_noise_ratio = config.label_noise_ratio
        self.box_noise_scale = config.box_noise_scale

        self.input_proj = nn.ModuleList(ConvNorm(channels, width, 1) for channels in in_channels)
        layers = [DecoderLayer(config) for _ in range(num_layers)]
        self.decoder = _DecoderLayers(layers)
        if config.num_denoising > 0:
            self.denoising_class_embed = nn.Embedding(num_classes + 1, width, padding_idx=num_classes)
        self.query_pos_head = MLP(4, 2 * width, width, 2)
        self.enc_output = nn.Sequential(OrderedDict(proj=nn.Linear(width, width), norm=nn.LayerNorm(width)))
        self.enc_score_head = nn.Linear(width, num_classes)
        self.enc_bbox_head = MLP(width, width, 4, 3)
        self.dec_score_head = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(num_layers))
        self.dec_bbox_head = nn.ModuleList(MLP(width, width, 4, 3) for _ in range(num_layers))
        self._reset_parameters()

        self.anchor_sizes = [(image_size[0] // stride, image_size[1] // stride) for stride in (8, 16, 32)]
        anchors, valid_mask = make_anchors(self.anchor_sizes)
        self.register_buffer("anchors", anchors)
        self.register_buffer("valid_mask", valid_mask)
        self._anchors: ShapeCache[tuple[Tensor, Tensor]] = ShapeCache()
        self._attention_masks: ShapeCache[Tensor] = ShapeCache()

    def _reset_parameters(self) -> None:
        bias = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        for score_head in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(score_head.bias, bias)
        for box_head in (self.enc_bbox_head, *self.dec_bbox_head):  # so that boxes start at their reference boxes
            nn.init.zeros_(box_head.layers[-1].weight)
            nn.init.zeros_(box_head.layers[-1].bias)
        for layer in (self.enc_output.proj, *self.query_pos_head.layers, *(p.conv for p in self.input_proj)):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, feature_maps: Sequence[Tensor], targets: Targets | None = None) -> ModelOutput:
        """Detect objects.

        Args:
            feature_maps: ``[B, C, h, w]`` per level from the encoder, finest first.
            targets: ground truth, for the denoising queries in training.

        Returns:
            in evaluation, predictions of the last layer used; in training, predictions of all layers, of the encoder
            and of the denoising queries.

        Raises:
            ValueError: in training with denoising queries, if there are no targets.
        """
        maps = [project(feature_map) for project, feature_map in zip(self.input_proj, feature_maps, strict=True)]
        sizes = [(feature_map.shape[2], feature_map.shape[3]) for feature_map in maps]
        memory_BND = torch.cat([feature_map.flatten(2).transpose(1, 2) for feature_map in maps], 1)
        content_BQD, reference_logits_BQ4, encoder_logits_BQC = self._select_queries(memory_BND, sizes)
        encoder_boxes_BQ4 = reference_logits_BQ4.sigmoid()
        content_BQD, reference_logits_BQ4 = content_BQD.detach(), reference_logits_BQ4.detach()
        if not self.training:
            logits, boxes = self._refine(content_BQD, reference_logits_BQ4, memory_BND, sizes, None)
            return ModelOutput(logits[-1], boxes[-1])

        if self.num_denoising == 0:
            logits, boxes = self._refine(content_BQD, reference_logits_BQ4, memory_BND, sizes, None)
            return ModelOutput(torch.stack(logits), torch.stack(boxes), encoder_logits_BQC, encoder_boxes_BQ4)

        if targets is None:
            raise ValueError("training with denoising queries needs targets: call model(images, targets)")
        layout = DenoisingLayout.of(targets.totals.most_boxes, self.num_denoising, self.max_denoising_boxes)
        num_matching = content_BQD.shape[1]
        noisy_BTD, noisy_logits_BT4 = noisy_queries(
            targets, layout, self.denoising_class_embed, self.label_noise_ratio, self.box_noise_scale
        )
        attention_mask = self._attention_masks.get(
            (layout, num_matching, content_BQD.device), lambda: layout.attention_mask(num_matching, content_BQD.device)
        )
        content = torch.cat([noisy_BTD.to(content_BQD.dtype), content_BQD], 1)
        reference_logits = torch.cat([noisy_logits_BT4, reference_logits_BQ4], 1)
        logits_list, boxes_list = self._refine(content, reference_logits, memory_BND, sizes, attention_mask)
        parts = [layout.num_queries, num_matching]
        noisy_logits, logits_LBQC = torch.stack(logits_list).split(parts, 2)
        noisy_boxes, boxes_LBQ4 = torch.stack(boxes_list).split(parts, 2)
        denoising = DenoisingOutput(layout, noisy_logits, noisy_boxes)
        return ModelOutput(logits_LBQC, boxes_LBQ4, encoder_logits_BQC, encoder_boxes_BQ4, denoising)

    def _select_queries(self, memory_BND: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Query selection: the positions with the best class scores.

        Returns:
            content ``[B, Q, D]``, box logits ``[B, Q, 4]``, class logits ``[B, Q, C]``.
        """
        anchors_1N4, valid_1N1 = self._anchors_for(sizes, memory_BND.device)
        with torch.no_grad():
            # Only selected positions receive a gradient, so autograd need not see the others.
            output_BND = self.enc_output(memory_BND * valid_1N1)
            scores_BN = self.enc_score_head(output_BND).amax(-1)
            chosen_BQ = scores_BN.topk(min(self.num_queries, scores_BN.shape[1]), 1).indices
        index_BQD = chosen_BQ[..., None].expand(-1, -1, memory_BND.shape[-1])
        if self.training:
            content_BQD = self.enc_output(memory_BND.gather(1, index_BQD) * valid_1N1[0][chosen_BQ])
        else:
            content_BQD = output_BND.gather(1, index_BQD)
        box_logits_BQ4 = self.enc_bbox_head(content_BQD) + anchors_1N4[0][chosen_BQ]
        return content_BQD, box_logits_BQ4, self.enc_score_head(content_BQD)

    def _anchors_for(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
        if not is_recorded() and list(sizes) == self.anchor_sizes:
            return self.anchors, self.valid_mask

        def make() -> tuple[Tensor, Tensor]:
            anchors, valid = make_anchors(sizes)
            return anchors.to(device), valid.to(device)

        return self._anchors.get((tuple(sizes), device), make)

    def _refine(
        self,
        x_BQD: Tensor,
        reference_logits_BQ4: Tensor,
        memory_BND: Tensor,
        sizes: Sequence[tuple[int, int]],
        attention_mask_QQ: Tensor | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run the layers. Each refines the boxes of the layer before (iterative box refinement).

        A layer's box is trained through its own correction and that of the layer before ("look forward twice", DINO,
        section 3.5). Attention and the next correction start from detached boxes.

        Returns:
            logits ``[B, Q, C]`` and boxes ``[B, Q, 4]`` for each layer in training, for the last one in evaluation.
        """
        num_layers = len(self.decoder.layers) if self.training else self.num_eval_layers
        reference_BQ4 = reference_logits_BQ4.sigmoid()
        previous_BQ4: Tensor | None = None
        logits: list[Tensor] = []
        boxes: list[Tensor] = []
        for index, layer in enumerate(self.decoder.layers[:num_layers]):
            values = cast(DecoderLayer, layer).cross_attn.values(memory_BND, sizes)
            x_BQD = layer(x_BQD, self.query_pos_head(reference_BQ4), reference_BQ4, values, attention_mask_QQ)
            correction_BQ4 = self.dec_bbox_head[index](x_BQD)
            refined_BQ4 = (correction_BQ4 + inverse_sigmoid(reference_BQ4)).sigmoid()
            if self.training or index == num_layers - 1:
                logits.append(self.dec_score_head[index](x_BQD))
                boxes.append(
                    refined_BQ4
                    if previous_BQ4 is None or not self.training
                    else (correction_BQ4 + inverse_sigmoid(previous_BQ4)).sigmoid()
                )
            previous_BQ4 = refined_BQ4
            reference_BQ4 = refined_BQ4.detach()
        return logits, boxes

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # Anchors follow from the image size. So a checkpoint of another image size loads, too.
        state_dict = {k: v for k, v in state_dict.items() if k not in (prefix + "anchors", prefix + "valid_mask")}
        state_dict |= {prefix + "anchors": self.anchors, prefix + "valid_mask": self.valid_mask}
        super()._load_from_state_dict(state_dict, prefix, *args)
