"""Writing a checkpoint as the authors' code does, for their ``tools/train.py`` and their deployment scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_train.checkpoints.published import published_architectures
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.model.architecture import Architecture, BackboneConfig


def export_reference(detector: Detector, output: Path) -> dict[str, object]:
    """Write a checkpoint of the authors' code.

    All decoder layers are kept; how many are used, the number of classes and the input size belong into the authors'
    configuration, and are returned.

    Args:
        detector: what to write.
        output: a ``.pth`` file, or the folder to write ``model.pth`` in.

    Returns:
        what to tell the user, by name.

    Raises:
        UserError: if the authors' code cannot build the model.
    """
    path = output if output.suffix == ".pth" else output / "model.pth"
    model = detector.pytorch_model
    decoder = model.architecture.decoder
    write_authors_file(path, model.state_dict(), model.architecture)
    used = model.decoder.num_eval_layers
    shape = {"images": "keep their aspect ratio, with a black margin at the right or below"}
    return {
        "checkpoint of the authors' code": path,
        "  num_classes": model.architecture.num_classes,
        "  remap_mscoco_category": model.architecture.num_classes == 80,
        "  eval_spatial_size": list(detector.image_size),
        **({f"  {key}": text for key, text in shape.items()} if detector.letterbox else {}),
        "  RTDETRTransformerv2.eval_idx": -1 if used == decoder.num_layers else used - 1,
        "  RTDETRTransformerv2.num_points": list(decoder.num_points),
        "  RTDETRTransformerv2.cross_attn_method": decoder.sampling,
    }


def write_authors_file(path: str | Path, state_dict: Mapping[str, Tensor], architecture: Architecture) -> Path:
    """Write weights where the authors' code looks for them: as the model, and as its EMA.

    There is no optimizer in it: it is for ``-t`` (start training from), ``-r ... --test-only``, and deployment.

    Args:
        path: the file, usually ``.pth``; its folder is made if missing.
        state_dict: under the reference names, anchors included.
        architecture: of the model.

    Returns:
        ``path``.

    Raises:
        UserError: if their code has no such backbone.
    """
    backbone = architecture.backbone
    if architecture.in_channels != 3:
        raise UserError(
            f"the authors' code has models of RGB only, and this one takes {architecture.in_channels} channels: export "
            "with format=huggingface, or for a runtime such as format=onnx"
        )
    if _shape(backbone) not in [_shape(published.backbone) for published in published_architectures().values()]:
        raise UserError(
            f"the authors' code cannot build this model: its backbone has {list(backbone.blocks)} blocks and "
            f"{backbone.stem_channels[1]} channels after the stem; export a model with ResNet-vd 18, 34, 50 or 101 or "
            "HGNetv2 L, X or H"
        )
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_dict.items()}
    content: dict[str, Any] = {"last_epoch": -1, "model": weights, "ema": {"module": weights, "updates": 0}}
    return atomic_save(path, lambda temporary: torch.save(content, temporary))


def _shape(backbone: BackboneConfig) -> BackboneConfig:
    """The backbone, whatever of it is frozen."""
    return replace(backbone, freeze_stem=False, freeze_batchnorm=False)
