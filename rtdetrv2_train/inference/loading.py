"""A detector from any checkpoint, ready to predict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint
from rtdetrv2_train.checkpoints.loading import load_weights
from rtdetrv2_train.checkpoints.published import looks_like, published_name
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import read_json
from rtdetrv2_train.inference.detector import DEFAULT_THRESHOLD, Detector, make_detector
from rtdetrv2_train.inference.exported import load_exported, refuse_settings
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.runs.folder import ANALYSIS_FILE, newest_run, run_folder_of
from rtdetrv2_train.runs.model_configuration import configured_architecture, model_config

log = logging.getLogger(__name__)


def load_detector(
    source: str | Path,
    model: str | DictConfig | None = None,
    num_eval_layers: int | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    half: bool = False,
) -> Detector:
    """A trained detector, ready to predict.

    Args:
        source: a run's folder (or that of runs: the newest), one of its checkpoints, a ``model/`` folder, a checkpoint
            of the authors' or its URL, a model of Hugging Face's (a folder, or its id on the hub), or a model that
            ``rtdetrv2 export`` wrote for another runtime.
        model: name of the model, or its configuration, for weights that neither say nor show it: those of ``discrete``
            sampling or of another shape than the published ones, in the authors' files.
        num_eval_layers: decoder layers to use; None for as many as the model is meant to.
        class_names: for weights that come without them, in the order of the class indices.
        device: None for a GPU if PyTorch finds one, else the CPU.
        half: whether to compute in half precision.

    Raises:
        UserError: if there are no weights that can be read, what model they belong to is not known, or there is no such
            device.
    """
    if (exported := load_exported(source)) is not None:
        elsewhere = None if str(device) in ("None", "cpu") else device
        refuse_settings(
            source, model=model, num_eval_layers=num_eval_layers, class_names=class_names, half=half, device=elsewhere
        )
        return exported
    checkpoint = read_checkpoint(newest_run(source) if Path(source).is_dir() else source)
    config = model_config(model) if isinstance(model, str) else model
    detector = restore(checkpoint, config, num_eval_layers, class_names)
    try:
        detector.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:  # no such device, no driver, a PyTorch without CUDA
        raise UserError(
            f"device={device} cannot be used ({str(error).splitlines()[0]}): give cpu, cuda or cuda:1"
        ) from error
    return replace(detector, half=half, threshold=_recommended_threshold(checkpoint))


def _recommended_threshold(checkpoint: Checkpoint) -> float:
    """The threshold on the model's card, or else in the report of its run."""
    if checkpoint.card is not None and checkpoint.card.threshold is not None:
        return checkpoint.card.threshold
    folder = run_folder_of(checkpoint.source)
    path = folder / ANALYSIS_FILE if folder else None
    return float(read_json(path)["threshold"]) if path and path.exists() else DEFAULT_THRESHOLD


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
    architecture = checkpoint.architecture
    if checkpoint.card is None:
        architecture = _completed(checkpoint, config or _recognised(checkpoint))
    model = RTDETRv2(architecture)
    for line in load_weights(model, checkpoint).summary():
        log.info(line)
    model.use_decoder_layers(num_eval_layers)
    detector = make_detector(model.eval(), class_names or checkpoint.named_beside())
    return replace(
        detector,
        category_ids=tuple(checkpoint.category_ids or ()),
        letterbox=checkpoint.letterbox,
        pixel_range=checkpoint.pixel_range,
    )


def _recognised(checkpoint: Checkpoint) -> DictConfig:
    """The configuration of the published model with this shape, however many decoder layers are left of it."""
    if (name := published_name(checkpoint.architecture)) is not None:
        return model_config(name)
    raise UserError(
        f"'{checkpoint.source}' does not say what model it is and looks like {looks_like(checkpoint.architecture)}: "
        "name its configuration, such as model=r18vd"
    )


def _completed(checkpoint: Checkpoint, config: DictConfig) -> Architecture:
    """The architecture of a configuration, with what the checkpoint shows or says of its own."""
    shown = checkpoint.architecture.decoder
    base = configured_architecture(
        config, checkpoint.architecture.num_classes, checkpoint.image_size, checkpoint.architecture.in_channels
    )
    decoder = replace(
        base.decoder,
        num_layers=shown.num_layers,
        num_points=shown.num_points,
        num_eval_layers=base.decoder.num_eval_layers
        if (base.decoder.num_eval_layers or 0) <= shown.num_layers
        else None,
        num_denoising=base.decoder.num_denoising if shown.num_denoising else 0,
    )
    encoder = base.encoder
    if checkpoint.kind == "huggingface":  # transformers always uses all layers, and its configuration knows the rest
        decoder = replace(
            decoder,
            num_eval_layers=None,
            num_queries=shown.num_queries,
            sampling=shown.sampling,
            num_heads=shown.num_heads,
        )
        encoder = replace(encoder, num_heads=checkpoint.architecture.encoder.num_heads)
    return replace(base, encoder=encoder, decoder=decoder)
