"""The decoder as inference needs it: what follows from the weights alone is computed once.

Shape suffixes: B batch, N tokens of all feature maps, Q queries, D model width, C channels, h and w height and width of
a map, P channels of all projections of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rtdetrv2_train.model.decoder import Decoder, DecoderLayer, make_anchors
from rtdetrv2_train.model.layers import ConvNorm, ShapeCache, inverse_sigmoid
from rtdetrv2_train.model.output import ModelOutput


class InferenceDecoder(nn.Module):
    """A decoder's prediction in fewer operations, and without what only training needs.

    Each map of the encoder goes through ``input_proj``, then through ``value_proj`` of every layer and through the
    projection of query selection. No activation lies between, so that one 1x1 convolution for each map does it all.

    Args:
        decoder: whose BatchNorm is folded into its convolutions.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        count = decoder.num_eval_layers
        self.num_queries = decoder.num_queries
        self.layers = nn.ModuleList(decoder.decoder.layers[:count])
        self.query_pos_head = decoder.query_pos_head
        self.selection_norm = cast(nn.Module, decoder.enc_output.norm)
        self.enc_score_head: nn.Module = decoder.enc_score_head
        self.enc_bbox_head = decoder.enc_bbox_head
        self.score_head = decoder.dec_score_head[count - 1]
        self.bbox_heads = nn.ModuleList(decoder.dec_bbox_head[:count])
        attentions = [cast(DecoderLayer, layer).cross_attn for layer in self.layers]
        selection = cast(nn.Linear, decoder.enc_output.proj)
        following = [selection, *(attention.value_proj for attention in attentions)]
        self.projections = nn.ModuleList(_joined(cast(ConvNorm, p).conv, following) for p in decoder.input_proj)
        self.masked = nn.Parameter(selection.bias.detach().clone(), requires_grad=False)
        for attention in attentions:
            del attention.value_proj
        self.anchors: ShapeCache[tuple[Tensor, Tensor]] = ShapeCache()

    def forward(self, feature_maps: Sequence[Tensor], targets: None = None) -> ModelOutput:
        """Detect objects; see :meth:`Decoder.forward` in evaluation mode."""
        sizes = [(feature_map.shape[2], feature_map.shape[3]) for feature_map in feature_maps]
        projected = [
            project(feature_map).split(self.masked.shape[0], 1)
            for project, feature_map in zip(self.projections, feature_maps, strict=True)
        ]
        x_BQD, reference_BQ4 = self._select_queries([parts[0] for parts in projected], sizes)
        for index, (layer, bbox_head) in enumerate(zip(self.layers, self.bbox_heads, strict=True)):
            values = [parts[1 + index] for parts in projected]
            x_BQD = layer(x_BQD, self.query_pos_head(reference_BQ4), reference_BQ4, values)
            reference_BQ4 = (bbox_head(x_BQD) + inverse_sigmoid(reference_BQ4)).sigmoid()
        return ModelOutput(self.score_head(x_BQD), reference_BQ4)

    def _select_queries(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """The positions with the best class scores: content ``[B, Q, D]`` and boxes ``[B, Q, 4]``."""
        device = maps[0].device
        anchors_1N4, valid_1N1 = self.anchors.get((tuple(sizes), device), lambda: _anchors_on(device, sizes))
        tokens_BND = torch.cat([map_BDhw.flatten(2).transpose(1, 2) for map_BDhw in maps], 1)
        output_BND: Tensor = self.selection_norm(torch.where(valid_1N1, tokens_BND, self.masked.to(tokens_BND.dtype)))
        scores_BN = self.enc_score_head(output_BND).amax(-1)
        chosen_BQ = scores_BN.topk(min(self.num_queries, scores_BN.shape[1]), 1).indices
        content_BQD = output_BND.gather(1, chosen_BQ[..., None].expand(-1, -1, output_BND.shape[-1]))
        return content_BQD, (self.enc_bbox_head(content_BQD) + anchors_1N4[0][chosen_BQ]).sigmoid()


def _anchors_on(device: torch.device, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    anchors_1N4, valid_1N1 = make_anchors(sizes)
    return anchors_1N4.to(device), valid_1N1.to(device)


def _joined(conv: nn.Conv2d, following: Sequence[nn.Linear]) -> nn.Conv2d:
    """One 1x1 convolution ``[B, C, h, w]`` to ``[B, P, h, w]`` for a 1x1 convolution and the linear layers after it."""
    weight_DC = conv.weight.detach().double()[:, :, 0, 0]
    bias_D = cast(Tensor, conv.bias).detach().double()
    weight_PD = torch.cat([linear.weight.detach().double() for linear in following])
    bias_P = torch.cat([linear.bias.detach().double() for linear in following])
    joined = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, len(bias_P), 1, device=bias_D.device, dtype=conv.weight.dtype
    )
    with torch.no_grad():
        joined.weight.copy_((weight_PD @ weight_DC)[:, :, None, None])
        cast(Tensor, joined.bias).copy_(weight_PD @ bias_D + bias_P)
    return cast(nn.Conv2d, joined)
