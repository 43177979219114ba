"""Writing a folder that ``transformers`` opens as ``RTDetrV2ForObjectDetection``, without needing transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.weights.architecture import ArchitectureFacts, infer_architecture
from rtdetrv2_train.weights.huggingface_names import to_huggingface
from rtdetrv2_train.weights.saving import save_json, save_tensors

_CSP_BLOCKS = 3  # a constant in transformers
_DECODER_LAYER = re.compile(r"decoder\.(?:decoder\.layers|dec_score_head|dec_bbox_head)\.(\d+)\.")
_BILINEAR = 2  # PIL's number


def huggingface_config(facts: ArchitectureFacts, class_names: Sequence[str]) -> dict[str, Any]:
    """The content of ``config.json``.

    Args:
        facts: shape of the model.
        class_names: in the order of the class indices.

    Raises:
        UserError: if ``RTDetrV2ForObjectDetection`` cannot have this shape, or the names do not fit it.
    """
    if len(class_names) != facts.num_classes:
        raise UserError(f"{len(class_names)} class names were given for a model of {facts.num_classes} classes")
    if len(set(facts.num_points)) != 1:
        raise UserError(
            f"Hugging Face's RTDetrV2 has one number of sampling points for all levels, this model has "
            f"{list(facts.num_points)}: export to another format, or train with equal numbers"
        )
    if facts.csp_blocks != _CSP_BLOCKS:
        raise UserError(
            f"Hugging Face's RTDetrV2 has {_CSP_BLOCKS} fusion blocks, this model has {facts.csp_blocks}: export to "
            "another format"
        )
    levels = len(facts.num_points)
    return {
        "architectures": ["RTDetrV2ForObjectDetection"],
        "model_type": "rt_detr_v2",
        "backbone_config": _backbone_config(facts),
        "freeze_backbone_batch_norms": not facts.trained_backbone_norms,
        "encoder_hidden_dim": facts.encoder_width,
        "encoder_in_channels": list(facts.backbone_channels[-levels:]),
        "encoder_layers": facts.encoder_layers,
        "encoder_ffn_dim": facts.encoder_feedforward,
        "encoder_attention_heads": facts.encoder_heads,
        "hidden_expansion": facts.csp_expansion,
        "d_model": facts.decoder_width,
        "num_queries": facts.num_queries,
        "decoder_in_channels": [facts.encoder_width] * levels,
        "decoder_ffn_dim": facts.decoder_feedforward,
        "decoder_layers": facts.decoder_layers,
        "decoder_attention_heads": facts.num_heads,
        "decoder_n_levels": levels,
        "num_feature_levels": levels,
        "decoder_n_points": facts.num_points[0],
        "decoder_offset_scale": 0.5,
        "decoder_method": facts.method,
        "num_denoising": 100 if facts.has_denoising else 0,
        "is_encoder_decoder": True,
        "id2label": {str(index): name for index, name in enumerate(class_names)},
        "label2id": {name: index for index, name in enumerate(class_names)},
    }


def _backbone_config(facts: ArchitectureFacts) -> dict[str, Any]:
    out = {"out_features": ["stage2", "stage3", "stage4"], "out_indices": [2, 3, 4]}
    channels = list(facts.backbone_channels)
    if facts.backbone == "resnet_vd":
        return {
            "model_type": "rt_detr_resnet",
            "layer_type": facts.backbone_block,
            "depths": list(facts.backbone_blocks),
            "embedding_size": facts.stem_channels[1],
            "hidden_sizes": channels,
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            **out,
        }
    return {
        "model_type": "hgnet_v2",
        "stem_channels": [3, *facts.stem_channels],
        "stage_in_channels": [facts.stem_channels[1], *channels[:-1]],
        "stage_mid_channels": list(facts.backbone_mid_channels),
        "stage_out_channels": channels,
        "stage_num_blocks": list(facts.backbone_blocks),
        "stage_numb_of_layers": list(facts.backbone_layers),
        "stage_downsample": [stage > 0 for stage in range(len(channels))],
        "stage_light_block": [stage > 1 for stage in range(len(channels))],
        "stage_kernel_size": [5 if stage > 1 else 3 for stage in range(len(channels))],
        "depths": list(facts.backbone_blocks),
        "hidden_sizes": channels,
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        **out,
    }


def image_processor_config(image_size: tuple[int, int]) -> dict[str, Any]:
    """The content of ``preprocessor_config.json``: images resized to (height, width) and scaled to [0, 1]."""
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": image_size[0], "width": image_size[1]},
        "resample": _BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
        "do_convert_annotations": True,
        "format": "coco_detection",
    }


def write_huggingface_folder(
    folder: str | Path,
    state_dict: Mapping[str, Tensor],
    class_names: Sequence[str],
    image_size: tuple[int, int] = (640, 640),
    facts: ArchitectureFacts | None = None,
    decoder_layers: int | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

    Args:
        folder: made if missing.
        state_dict: under the reference names.
        class_names: in the order of the class indices.
        image_size: (height, width) of the input.
        facts: what the weights do not show: queries, sampling method, encoder heads. None: read off the weights.
        decoder_layers: keep the first ones only. Transformers always uses all layers, so a model that is evaluated with
            fewer than it trains (r50vd_m) predicts the same there only without the others.

    Returns:
        ``folder``.

    Raises:
        UserError: if transformers' model cannot have this shape.
    """
    folder = Path(folder)
    facts = facts or infer_architecture(state_dict)
    if decoder_layers is not None:
        kept = {}
        for name, tensor in state_dict.items():
            layer = _DECODER_LAYER.match(name)
            if layer is None or int(layer[1]) < decoder_layers:
                kept[name] = tensor
        state_dict, facts = kept, replace(facts, decoder_layers=min(decoder_layers, facts.decoder_layers))
    config = huggingface_config(facts, class_names)
    save_tensors(folder / "model.safetensors", to_huggingface(state_dict))
    save_json(folder / "preprocessor_config.json", image_processor_config(image_size))
    save_json(folder / "config.json", config)
    return folder
