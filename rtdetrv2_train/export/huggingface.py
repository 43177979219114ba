"""Writing a folder that ``transformers`` opens as ``RTDetrV2ForObjectDetection``, without needing transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetrv2_train.checkpoints.huggingface_names import to_huggingface
from rtdetrv2_train.checkpoints.model_folder import CARD
from rtdetrv2_train.checkpoints.tensors import save_tensors
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import save_json
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.model.architecture import Architecture, BackboneConfig
from rtdetrv2_train.model.backbones.resnet import ResNetVDConfig

_CSP_BLOCKS = 3  # a constant in transformers
_DECODER_LAYER = re.compile(r"decoder\.(?:decoder\.layers|dec_score_head|dec_bbox_head)\.(\d+)\.")
_BILINEAR = 2  # PIL's number


def export_huggingface(detector: Detector, folder: Path) -> dict[str, object]:
    """Write a folder that transformers opens as ``RTDetrV2ForObjectDetection`` and ``RTDetrImageProcessor``.

    Decoder layers that the detector does not use are left out, as transformers uses all there are.

    Args:
        detector: what to write.
        folder: made if missing.

    Returns:
        what to tell the user, by name.

    Raises:
        UserError: if transformers' model cannot have this shape or predict the same, or the folder holds a model of
            this project.
    """
    if (folder / CARD).exists():
        raise UserError(f"'{folder}' holds a model of this project, which would be overwritten: give another output=")
    height, width = detector.image_size
    if height != width:
        # transformers 5 orders the encoder's positions by rows, the authors by columns: the same on square maps only
        raise UserError(
            f"Hugging Face's RTDetrV2 predicts the same on square images only, this model's are {height} x {width}: "
            "export with format=reference, or train with a square model.image_size"
        )
    if detector.letterbox:
        raise UserError(
            "Hugging Face's image processor maps boxes back as if images had been stretched, but this model was "
            "trained with data.letterbox=true: export with format=reference, or train without it"
        )
    model = detector.pytorch_model
    decoder = replace(model.architecture.decoder, num_layers=model.decoder.num_eval_layers, num_eval_layers=None)
    write_huggingface_folder(
        folder,
        model.state_dict(),
        detector.class_names,
        replace(model.architecture, decoder=decoder, image_size=detector.image_size),
    )
    return {
        "Hugging Face model": folder,
        "open it with": f'RTDetrV2ForObjectDetection.from_pretrained("{os.path.relpath(folder)}")',
    }


def huggingface_config(architecture: Architecture, class_names: Sequence[str]) -> dict[str, Any]:
    """The content of ``config.json``.

    Args:
        architecture: of the model.
        class_names: in the order of the class indices.

    Raises:
        UserError: if ``RTDetrV2ForObjectDetection`` cannot have this shape, or the names do not fit it.
    """
    backbone, encoder, decoder = architecture.backbone, architecture.encoder, architecture.decoder
    if len(class_names) != architecture.num_classes:
        raise UserError(f"{len(class_names)} class names were given for a model of {architecture.num_classes} classes")
    if len(set(decoder.num_points)) != 1:
        raise UserError(
            f"Hugging Face's RTDetrV2 has one number of sampling points for all levels, this model has "
            f"{list(decoder.num_points)}: export to another format, or train with equal numbers"
        )
    if encoder.num_fusion_blocks != _CSP_BLOCKS:
        raise UserError(
            f"Hugging Face's RTDetrV2 has {_CSP_BLOCKS} fusion blocks, this model has {encoder.num_fusion_blocks}: "
            "export to another format"
        )
    levels = len(decoder.num_points)
    return {
        "architectures": ["RTDetrV2ForObjectDetection"],
        "model_type": "rt_detr_v2",
        "backbone_config": _backbone_config(backbone, architecture.in_channels),
        "freeze_backbone_batch_norms": backbone.freeze_batchnorm,
        "encoder_hidden_dim": encoder.width,
        "encoder_in_channels": list(backbone.stage_channels[-levels:]),
        "encoder_layers": encoder.num_layers,
        "encoder_ffn_dim": encoder.feedforward_width,
        "encoder_attention_heads": encoder.num_heads,
        "hidden_expansion": encoder.expansion,
        "d_model": decoder.width,
        "num_queries": decoder.num_queries,
        "decoder_in_channels": [encoder.width] * levels,
        "decoder_ffn_dim": decoder.feedforward_width,
        "decoder_layers": decoder.num_layers,
        "decoder_attention_heads": decoder.num_heads,
        "decoder_n_levels": levels,
        "num_feature_levels": levels,
        "decoder_n_points": decoder.num_points[0],
        "decoder_offset_scale": 0.5,
        "decoder_method": decoder.sampling,
        "num_denoising": 100 if decoder.num_denoising else 0,
        "is_encoder_decoder": True,
        "id2label": {str(index): name for index, name in enumerate(class_names)},
        "label2id": {name: index for index, name in enumerate(class_names)},
    }


def _backbone_config(backbone: BackboneConfig, channels: int) -> dict[str, Any]:
    shared = {
        "num_channels": channels,
        "out_features": ["stage2", "stage3", "stage4"],
        "out_indices": [2, 3, 4],
        "depths": list(backbone.blocks),
        "hidden_sizes": list(backbone.stage_channels),
        "hidden_act": "relu",
    }
    if isinstance(backbone, ResNetVDConfig):
        return {
            "model_type": "rt_detr_resnet",
            "layer_type": "bottleneck" if backbone.bottleneck else "basic",
            "embedding_size": backbone.width,
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
            **shared,
        }
    stages = backbone.stages
    return {
        "model_type": "hgnet_v2",
        "stem_channels": [channels, *backbone.stem_channels],
        "stage_in_channels": [backbone.stem_channels[1], *backbone.stage_channels[:-1]],
        "stage_mid_channels": [stage.mid_channels for stage in stages],
        "stage_out_channels": list(backbone.stage_channels),
        "stage_num_blocks": list(backbone.blocks),
        "stage_numb_of_layers": [stage.layers for stage in stages],
        "stage_downsample": [stage.downsample for stage in stages],
        "stage_light_block": [stage.light for stage in stages],
        "stage_kernel_size": [stage.kernel_size for stage in stages],
        "use_learnable_affine_block": False,
        **shared,
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
    folder: str | Path, state_dict: Mapping[str, Tensor], class_names: Sequence[str], architecture: Architecture
) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

    Args:
        folder: made if missing.
        state_dict: under the reference names. Transformers uses all decoder layers that there are; those beyond the
            architecture's are left out.
        class_names: in the order of the class indices.
        architecture: of the model to write.

    Returns:
        ``folder``.

    Raises:
        UserError: if transformers' model cannot have this shape.
    """
    folder = Path(folder)
    config = huggingface_config(architecture, class_names)
    kept = {}
    for name, tensor in state_dict.items():
        layer = _DECODER_LAYER.match(name)
        if layer is None or int(layer[1]) < architecture.decoder.num_layers:
            kept[name] = tensor
    save_tensors(folder / "model.safetensors", to_huggingface(kept))
    save_json(folder / "preprocessor_config.json", image_processor_config(architecture.image_size))
    save_json(folder / "config.json", config)
    return folder
