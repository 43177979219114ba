"""The names of Hugging Face's ``RTDetrV2ForObjectDetection``, and ours, in both directions.

On disk transformers keeps its first names; since version 5 some modules are called otherwise in memory. Both are
understood, and the names on disk are written. Queries, keys and values are one matrix here and three there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError

# Reference name, Hugging Face's; # stands for a number, and whatever follows is kept.
_PREFIXES = (
    ("backbone.conv1.conv1_1.conv.", "model.backbone.model.embedder.embedder.0.convolution."),
    ("backbone.conv1.conv1_1.norm.", "model.backbone.model.embedder.embedder.0.normalization."),
    ("backbone.conv1.conv1_2.conv.", "model.backbone.model.embedder.embedder.1.convolution."),
    ("backbone.conv1.conv1_2.norm.", "model.backbone.model.embedder.embedder.1.normalization."),
    ("backbone.conv1.conv1_3.conv.", "model.backbone.model.embedder.embedder.2.convolution."),
    ("backbone.conv1.conv1_3.norm.", "model.backbone.model.embedder.embedder.2.normalization."),
    ("backbone.stem.stem2a.conv.1.", "model.backbone.model.embedder.stem2a.convolution."),
    ("backbone.stem.stem2b.conv.1.", "model.backbone.model.embedder.stem2b.convolution."),
    ("backbone.stem.stem#.conv.", "model.backbone.model.embedder.stem#.convolution."),
    ("backbone.stem.stem2a.bn.", "model.backbone.model.embedder.stem2a.normalization."),
    ("backbone.stem.stem2b.bn.", "model.backbone.model.embedder.stem2b.normalization."),
    ("backbone.stem.stem#.bn.", "model.backbone.model.embedder.stem#.normalization."),
    ("encoder.input_proj.#.conv.", "model.encoder_input_proj.#.0."),
    ("encoder.input_proj.#.norm.", "model.encoder_input_proj.#.1."),
    ("encoder.encoder.#.layers.#.self_attn.", "model.encoder.encoder.#.layers.#.self_attn."),
    ("encoder.encoder.#.layers.#.linear1.", "model.encoder.encoder.#.layers.#.fc1."),
    ("encoder.encoder.#.layers.#.linear2.", "model.encoder.encoder.#.layers.#.fc2."),
    ("encoder.encoder.#.layers.#.norm1.", "model.encoder.encoder.#.layers.#.self_attn_layer_norm."),
    ("encoder.encoder.#.layers.#.norm2.", "model.encoder.encoder.#.layers.#.final_layer_norm."),
    ("encoder.lateral_convs.", "model.encoder.lateral_convs."),
    ("encoder.fpn_blocks.", "model.encoder.fpn_blocks."),
    ("encoder.downsample_convs.", "model.encoder.downsample_convs."),
    ("encoder.pan_blocks.", "model.encoder.pan_blocks."),
    ("decoder.input_proj.#.conv.", "model.decoder_input_proj.#.0."),
    ("decoder.input_proj.#.norm.", "model.decoder_input_proj.#.1."),
    ("decoder.decoder.layers.#.cross_attn.num_points_scale", "model.decoder.layers.#.encoder_attn.n_points_scale"),
    ("decoder.decoder.layers.#.cross_attn.", "model.decoder.layers.#.encoder_attn."),
    ("decoder.decoder.layers.#.self_attn.", "model.decoder.layers.#.self_attn."),
    ("decoder.decoder.layers.#.linear1.", "model.decoder.layers.#.fc1."),
    ("decoder.decoder.layers.#.linear2.", "model.decoder.layers.#.fc2."),
    ("decoder.decoder.layers.#.norm1.", "model.decoder.layers.#.self_attn_layer_norm."),
    ("decoder.decoder.layers.#.norm2.", "model.decoder.layers.#.encoder_attn_layer_norm."),
    ("decoder.decoder.layers.#.norm3.", "model.decoder.layers.#.final_layer_norm."),
    ("decoder.denoising_class_embed.", "model.denoising_class_embed."),
    ("decoder.query_pos_head.", "model.decoder.query_pos_head."),
    ("decoder.enc_output.proj.", "model.enc_output.0."),
    ("decoder.enc_output.norm.", "model.enc_output.1."),
    ("decoder.enc_score_head.", "model.enc_score_head."),
    ("decoder.enc_bbox_head.", "model.enc_bbox_head."),
    ("decoder.dec_score_head.#.", "model.decoder.class_embed.#."),
    ("decoder.dec_bbox_head.#.", "model.decoder.bbox_embed.#."),
)
# Names inside a backbone stage, after `backbone.res_layers.#.blocks.#.` or `backbone.stages.#.`.
_RESNET_BLOCK = (
    ("short.conv.conv.", "shortcut.1.convolution."),
    ("short.conv.norm.", "shortcut.1.normalization."),
    ("short.conv.", "shortcut.convolution."),
    ("short.norm.", "shortcut.normalization."),
    *((f"branch2{'abc'[n]}.conv.", f"layer.{n}.convolution.") for n in range(3)),
    *((f"branch2{'abc'[n]}.norm.", f"layer.{n}.normalization.") for n in range(3)),
)
_HGNET_STAGE = (
    ("downsample.conv.", "downsample.convolution."),
    ("downsample.bn.", "downsample.normalization."),
    ("blocks.#.layers.#.conv.", "blocks.#.layers.#.convolution."),
    ("blocks.#.layers.#.bn.", "blocks.#.layers.#.normalization."),
    ("blocks.#.layers.#.conv#.conv.", "blocks.#.layers.#.conv#.convolution."),
    ("blocks.#.layers.#.conv#.bn.", "blocks.#.layers.#.conv#.normalization."),
    ("blocks.#.aggregation_squeeze_conv.conv.", "blocks.#.aggregation.0.convolution."),
    ("blocks.#.aggregation_squeeze_conv.bn.", "blocks.#.aggregation.0.normalization."),
    ("blocks.#.aggregation_excitation_conv.conv.", "blocks.#.aggregation.1.convolution."),
    ("blocks.#.aggregation_excitation_conv.bn.", "blocks.#.aggregation.1.normalization."),
)
_STAGES = "model.backbone.model.encoder.stages.#."
_ALL = (
    *_PREFIXES,
    *((f"backbone.res_layers.#.blocks.#.{ours}", f"{_STAGES}layers.#.{theirs}") for ours, theirs in _RESNET_BLOCK),
    *((f"backbone.stages.#.{ours}", f"{_STAGES}{theirs}") for ours, theirs in _HGNET_STAGE),
)
# In memory and, for the heads that both parts of the model share, at the top: the name on disk.
_SYNONYMS = (
    (re.compile(r"^model\.encoder\.aifi\."), "model.encoder.encoder."),
    (re.compile(r"\.mlp\.fc([12])\."), r".fc\1."),
    (re.compile(r"\.self_attn\.o_proj\."), ".self_attn.out_proj."),
    (re.compile(r"^(class_embed|bbox_embed)\."), r"model.decoder.\1."),
)
_QKV = ("q", "k", "v")
_COMPUTED = ("decoder.anchors", "decoder.valid_mask")


def to_huggingface(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under Hugging Face's names on disk, from the reference names.

    All are kept bit for bit but ``decoder.anchors`` and ``decoder.valid_mask``, which transformers computes.

    Raises:
        UserError: if a name has no counterpart.
    """
    renamed = _rename(state_dict, _TO_HUGGINGFACE)
    converted: dict[str, Tensor] = {}
    for name, tensor in renamed.items():
        stem, _, kind = name.rpartition(".in_proj_")
        if not stem:
            converted[name] = tensor
            continue
        for letter, part in zip(_QKV, tensor.chunk(3), strict=True):
            converted[f"{stem}.{letter}_proj.{kind}"] = part.clone()
    return converted


def from_huggingface(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the reference names, from Hugging Face's in memory or on disk.

    Raises:
        UserError: if a name has no counterpart, or one of a query, key and value projection lacks the others.
    """
    joined: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in _SYNONYMS:
            name = pattern.sub(replacement, name)
        split = re.match(r"(.*\.self_attn\.)([qkv])_proj\.(weight|bias)$", name)
        if split is None:
            joined[name] = tensor
        else:
            parts.setdefault(f"{split[1]}in_proj_{split[3]}", {})[split[2]] = tensor
    for name, letters in parts.items():
        if len(letters) < len(_QKV):
            raise UserError(f"the Hugging Face weights are incomplete: '{name}' has only {', '.join(sorted(letters))}")
        joined[name] = torch.cat([letters[letter] for letter in _QKV])
    return _rename(joined, _FROM_HUGGINGFACE)


def has_huggingface_names(state_dict: Mapping[str, object]) -> bool:
    """Whether the keys are those of ``RTDetrV2ForObjectDetection``."""
    return any(name.startswith("model.backbone.model.") for name in state_dict)


Rule = tuple[re.Pattern[str], str]


def _rules(pairs: Iterable[tuple[str, str]]) -> list[Rule]:
    """Patterns that match a source name, and the replacement to its target name."""
    rules = []
    for source, target in pairs:
        pattern = "^" + re.escape(source).replace(re.escape("#"), r"(\d+)")
        numbers = iter(range(1, source.count("#") + 1))
        rules.append((re.compile(pattern), re.sub("#", lambda _, n=numbers: rf"\g<{next(n)}>", target)))  # type: ignore[misc]
    return rules


_TO_HUGGINGFACE = _rules(_ALL)
_FROM_HUGGINGFACE = _rules((theirs, ours) for ours, theirs in _ALL)


def _rename(state_dict: Mapping[str, Tensor], rules: list[Rule]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state_dict.items():
        if name in _COMPUTED:
            continue
        for pattern, replacement in rules:
            new_name, found = pattern.subn(replacement, name)
            if found:
                renamed[new_name] = tensor
                break
        else:
            raise UserError(
                f"'{name}' has no counterpart: RT-DETRv2's and Hugging Face's RTDetrV2 names are understood"
            )
    return renamed
