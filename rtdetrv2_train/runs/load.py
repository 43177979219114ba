"""A detector from any checkpoint, ready to predict."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.folders import newest_run
from rtdetrv2_train.runs.model_config import build_detector, model_config, use_decoder_layers
from rtdetrv2_train.runs.predict import Detector, make_detector
from rtdetrv2_train.weights.architecture import ArchitectureFacts
from rtdetrv2_train.weights.checkpoint import Checkpoint
from rtdetrv2_train.weights.checkpoints import read_checkpoint
from rtdetrv2_train.weights.matching import load_weights
from rtdetrv2_train.weights.naming import configuration_of, looks_like

log = logging.getLogger(__name__)

_PUBLISHED_LAYERS = (3, 4, 6)


def load_detector(
    source: str | Path,
    model: str | None = None,
    num_eval_layers: int | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    half: bool = False,
) -> Detector:
    """A trained detector, ready to predict.

    Args:
        source: a run's folder (or that of runs: the newest), one of its checkpoints, a ``model/`` folder, a checkpoint
            of the authors' or its URL, or a model of Hugging Face's (a folder, or its id on the hub).
        model: name of the model, for weights that neither say nor show it: those of ``discrete`` sampling or of another
            shape than the published ones, in the authors' files.
        num_eval_layers: decoder layers to use; None for as many as the model is meant to.
        class_names: for weights that come without them, in the order of the class indices.
        device: None for a GPU if PyTorch finds one, else the CPU.
        half: whether to compute in half precision.

    Raises:
        UserError: if there are no weights that can be read, or what model they belong to is not known.
    """
    checkpoint = read_checkpoint(newest_run(source) if Path(source).is_dir() else source)
    detector = restore(checkpoint, model_config(model) if model else None, num_eval_layers, class_names)
    detector.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return replace(detector, half=half)


def restore(
    checkpoint: Checkpoint,
    config: DictConfig | None = None,
    num_eval_layers: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Detector:
    """The detector of a checkpoint, on the CPU and in evaluation mode.

    Args:
        checkpoint: the weights.
        config: the configuration of their model, ``conf/model/*.yaml``, for a checkpoint that does not hold it.
        num_eval_layers: decoder layers to use; None for as many as the model is meant to.
        class_names: for a checkpoint without them.

    Raises:
        UserError: if the model is not known, or the weights do not fit it.
    """
    architecture: DictConfig | Mapping[str, Any]
    image_size = checkpoint.image_size
    if checkpoint.architecture is not None:
        architecture = checkpoint.architecture
    else:
        config = config or _recognised(checkpoint)
        image_size = image_size or (config.image_size[0], config.image_size[1])
        told = _told_by(checkpoint, config.architecture.decoder, image_size)
        architecture = cast(DictConfig, OmegaConf.merge(config.architecture, told))
    model = build_detector(architecture, checkpoint.facts.num_classes)
    for line in load_weights(model, checkpoint).summary():
        log.info(line)
    use_decoder_layers(model, num_eval_layers)
    detector = make_detector(model.eval(), class_names or checkpoint.class_names, image_size)
    return replace(detector, category_ids=tuple(checkpoint.category_ids or ()), letterbox=checkpoint.letterbox)


def _recognised(checkpoint: Checkpoint) -> DictConfig:
    """The configuration of the published model with this shape, however many decoder layers are left of it."""
    for layers in (checkpoint.facts.decoder_layers, *_PUBLISHED_LAYERS):
        if overrides := configuration_of(replace(checkpoint.facts, decoder_layers=layers)):
            chosen, *further = overrides.split()
            return model_config(chosen.removeprefix("model="), overrides=further)
    raise UserError(
        f"'{checkpoint.source}' does not say what model it is and looks like {looks_like(checkpoint.facts)}: name its "
        "configuration, such as model=r18vd"
    )


def _told_by(checkpoint: Checkpoint, decoder: DictConfig, image_size: tuple[int, int]) -> dict[str, Any]:
    """What the checkpoint tells of the architecture, as changes of the configuration."""
    facts: ArchitectureFacts = checkpoint.facts
    eval_layers = decoder.num_eval_layers
    told: dict[str, Any] = {"num_layers": facts.decoder_layers, "image_size": list(image_size)}
    if not facts.has_denoising:
        told["num_denoising"] = 0
    if checkpoint.kind != "huggingface":
        if eval_layers is not None and eval_layers > facts.decoder_layers:
            told["num_eval_layers"] = None
        return {"decoder": told}
    # transformers always uses all layers, and its configuration knows what the weights do not show
    told |= {"num_eval_layers": None, "num_queries": facts.num_queries, "sampling": facts.method}
    return {"decoder": {**told, "num_heads": facts.num_heads}, "encoder": {"num_heads": facts.encoder_heads}}
