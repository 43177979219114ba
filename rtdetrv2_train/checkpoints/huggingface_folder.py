"""Reading ``RTDetrV2ForObjectDetection`` from a folder or from the Hugging Face hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint, make_checkpoint
from rtdetrv2_train.checkpoints.download import hub_or_its_cache
from rtdetrv2_train.checkpoints.huggingface_names import from_huggingface
from rtdetrv2_train.checkpoints.model_folder import names_or_none
from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import read_json
from rtdetrv2_train.model.architecture import Architecture

log = logging.getLogger(__name__)

CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PREPROCESSOR = "preprocessor_config.json"
_MODEL_TYPE = "rt_detr_v2"


def read_huggingface_folder(folder: Path, source: str | None = None) -> Checkpoint:
    """The checkpoint in a folder with ``config.json`` and ``model.safetensors``, in one piece or in shards.

    Args:
        folder: the folder.
        source: its name for messages; None for its path.

    Raises:
        UserError: if it holds another model, or a file is missing or damaged.
    """
    source = source or str(folder)
    config = read_json(folder / CONFIG)
    if config.get("model_type") != _MODEL_TYPE:
        raise UserError(
            f"'{source}' is a Hugging Face model of type '{config.get('model_type')}': '{_MODEL_TYPE}' is needed"
        )
    labels = config.get("id2label") or {}
    names = [str(labels[key]) for key in sorted(labels, key=int)]
    image_size = _image_size(folder)
    if image_size is not None and image_size[0] != image_size[1]:
        # transformers 5 orders the encoder's positions by rows, the authors by columns: the same on square maps only
        log.warning(
            "'%s' is for images of %d x %d, which are not square: Hugging Face's RTDetrV2 gives their rows and columns "
            "other positions than the authors' code and this one, so predictions differ until it is fine-tuned here",
            source,
            *image_size,
        )
    checkpoint = make_checkpoint(
        from_huggingface(_read_weights(folder)), source, "huggingface", class_names=names_or_none(names)
    )
    return replace(checkpoint, image_size=image_size, architecture=_with_unseen(checkpoint.architecture, config))


def _with_unseen(architecture: Architecture, config: Mapping[str, Any]) -> Architecture:
    """The architecture with what weights do not show, but transformers' configuration knows."""
    decoder = {
        "num_queries": config.get("num_queries"),
        "sampling": config.get("decoder_method"),
        "num_heads": config.get("decoder_attention_heads"),
    }
    encoder = {"num_heads": config.get("encoder_attention_heads")}
    return replace(
        architecture,
        decoder=replace(architecture.decoder, **{key: value for key, value in decoder.items() if value is not None}),
        encoder=replace(architecture.encoder, **{key: value for key, value in encoder.items() if value is not None}),
    )


def download_from_hub(model_id: str) -> Path:
    """The folder of a model of the hub, fetched or from the local cache.

    Args:
        model_id: ``organisation/name``.

    Raises:
        UserError: if huggingface_hub is not installed or the model cannot be downloaded.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"'{model_id}' is no file or folder here; to download it from the Hugging Face hub: "
            'pip install "rtdetrv2-train[hub]"'
        ) from error
    try:
        with hub_or_its_cache():
            folder = huggingface_hub.snapshot_download(model_id, allow_patterns=["*.json", "*.safetensors"])
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"'{model_id}' is no file or folder here and could not be fetched from the Hugging Face hub ({reason}): "
            f"check the name and the network, or run `hf download {model_id} --local-dir FOLDER` elsewhere and "
            "give FOLDER"
        ) from error
    return Path(folder)


def _read_weights(folder: Path) -> dict[str, Any]:
    if not (folder / _INDEX).is_file():
        return load_tensors(folder / _WEIGHTS)
    shards = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise UserError(f"'{folder / _INDEX}' has no 'weight_map': fetch it again")
    tensors: dict[str, Any] = {}
    for shard in sorted(set(shards.values())):
        tensors.update(load_tensors(folder / shard))
    return tensors


def _image_size(folder: Path) -> tuple[int, int] | None:
    if not (folder / _PREPROCESSOR).is_file():
        return None
    size = read_json(folder / _PREPROCESSOR).get("size")
    return (size["height"], size["width"]) if isinstance(size, dict) and {"height", "width"} <= set(size) else None
