"""Reading a detector's checkpoint, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint, make_checkpoint
from rtdetrv2_train.checkpoints.download import download
from rtdetrv2_train.checkpoints.huggingface_folder import CONFIG, download_from_hub, read_huggingface_folder
from rtdetrv2_train.checkpoints.huggingface_names import from_huggingface, has_huggingface_names
from rtdetrv2_train.checkpoints.model_folder import CARD, WEIGHTS, ModelCard, read_card
from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.checkpoints.sources import check_checkpoint_source, is_hub_id, is_url
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.folder import BEST_CHECKPOINT, CHECKPOINT_FOLDER, LAST_CHECKPOINT, MODEL_FOLDER

MODEL_CARD_KEY = "model_card"  # where a Lightning checkpoint of ours keeps its ModelCard, as plain data

_RUN_CHECKPOINTS = tuple(f"{CHECKPOINT_FOLDER}/{name}" for name in (BEST_CHECKPOINT, LAST_CHECKPOINT))
_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel's and torch.compile's
_LIGHTNING_PREFIX = "model."


def read_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint at ``source``, recognised by what is there.

    Args:
        source: a checkpoint file of the authors, of ours, or bare weights (``.pth``, ``.ckpt``, ``.safetensors``); its
            URL; the folder of a run; a ``model/`` folder; a Hugging Face folder; or a model id of the Hugging Face hub.

    Raises:
        UserError: if there is nothing, or nothing that can be read.
    """
    name = str(source)
    check_checkpoint_source(name)
    path = Path(source)
    if is_url(name):
        return _read_file(download(name), name)
    if path.is_dir():
        return _read_folder(path)
    if is_hub_id(name):
        return read_huggingface_folder(download_from_hub(name), name)
    return _read_file(path, name)


def _read_folder(folder: Path) -> Checkpoint:
    if (folder / CARD).is_file():
        return make_checkpoint(load_tensors(folder / WEIGHTS), str(folder), "model_folder", read_card(folder))
    if (folder / CONFIG).is_file():
        return read_huggingface_folder(folder)
    if (folder / MODEL_FOLDER / CARD).is_file():
        return _read_folder(folder / MODEL_FOLDER)
    for checkpoint in _RUN_CHECKPOINTS:
        if (folder / checkpoint).is_file():
            return _read_file(folder / checkpoint, str(folder / checkpoint))
    raise UserError(
        f"folder '{folder}' holds no checkpoint: it needs {CARD} and {WEIGHTS} (a model folder), {CONFIG} and "
        f"{WEIGHTS} (a Hugging Face model), or model/, {' or '.join(_RUN_CHECKPOINTS)} (a run)"
    )


def _read_file(path: Path, source: str) -> Checkpoint:
    if path.name == WEIGHTS and ((path.parent / CARD).is_file() or (path.parent / CONFIG).is_file()):
        return _read_folder(path.parent)  # what lies beside the weights says more than they do
    content = load_tensors(path)
    if "state_dict" in content and "pytorch-lightning_version" in content:
        return _read_lightning(content, source)
    ema, model = content.get("ema"), content.get("model")
    if isinstance(ema, Mapping) and isinstance(ema.get("module"), Mapping):
        return make_checkpoint(_unwrap(ema["module"]), source, "authors")
    if isinstance(model, Mapping):
        return make_checkpoint(_unwrap(model), source, "authors")
    if has_huggingface_names(content):
        return make_checkpoint(from_huggingface(content), source, "huggingface")
    return make_checkpoint(_unwrap(content), source, "state_dict")


def _read_lightning(content: Mapping[str, Any], source: str) -> Checkpoint:
    weights = {
        name.removeprefix(_LIGHTNING_PREFIX): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(_LIGHTNING_PREFIX)
    }
    values = content.get(MODEL_CARD_KEY)
    card = None if values is None else ModelCard.from_dict(values, f"'{source}'")
    return make_checkpoint(_unwrap(weights), source, "lightning", card)


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Names without the prefixes that wrappers of a model put before them."""
    unwrapped = {}
    for name, tensor in state_dict.items():
        while name.startswith(_WRAPPERS):
            name = name.partition(".")[2]
        unwrapped[name] = tensor
    return unwrapped
