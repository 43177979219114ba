"""Writing a trained detector for other software."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.deformable_attention import MultiScaleDeformableAttention
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.layers import SelfAttention
from rtdetrv2_train.runs.folders import newest_run, run_folder_of
from rtdetrv2_train.runs.load import restore
from rtdetrv2_train.runs.model_config import nearest
from rtdetrv2_train.runs.predict import Detector
from rtdetrv2_train.weights.architecture import ArchitectureFacts, infer_architecture
from rtdetrv2_train.weights.authors_file import write_authors_file
from rtdetrv2_train.weights.checkpoints import read_checkpoint
from rtdetrv2_train.weights.huggingface import write_huggingface_folder
from rtdetrv2_train.weights.model_folder import CARD


def export(config: DictConfig) -> Path:
    """Write a run's or a checkpoint's detector in the format that the configuration names, and say where.

    Args:
        config: as composed from ``conf/export.yaml``.

    Returns:
        the folder or file written.

    Raises:
        UserError: if there is nothing to export, or the format cannot express the model.
    """
    if not (config.run or config.checkpoint):
        raise UserError("nothing to export: give run=runs/... or checkpoint=...")
    source = str(newest_run(config.run)) if config.run else str(config.checkpoint)
    write = FORMATS.get(config.format)
    if write is None:
        raise UserError(
            f"there is no format={config.format}: {nearest(str(config.format), FORMATS)}use {' or '.join(FORMATS)}"
        )
    output = _output(config.output, source, config.format)
    detector = restore(read_checkpoint(source), config.get("model"), config.num_eval_layers, config.class_names)
    return write(detector, output)


def export_huggingface(detector: Detector, folder: Path) -> Path:
    """Write a folder that transformers opens as ``RTDetrV2ForObjectDetection`` and ``RTDetrImageProcessor``.

    Decoder layers that the detector does not use are left out, as transformers uses all there are.

    Raises:
        UserError: if transformers' model cannot have this shape or predict the same, or our own weights lie in the
            folder.
    """
    if (folder / CARD).exists():
        raise UserError(f"'{folder}' holds a model of ours, which would be overwritten: give another output=")
    model, (height, width) = detector.model, detector.image_size
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
    write_huggingface_folder(
        folder,
        model.state_dict(),
        detector.class_names,
        detector.image_size,
        facts=facts_of(model),
        decoder_layers=model.decoder.num_eval_layers,
    )
    _say("Hugging Face model", folder)
    _say("open it with", f'RTDetrV2ForObjectDetection.from_pretrained("{_short(folder)}")')
    return folder


def export_reference(detector: Detector, output: Path) -> Path:
    """Write a checkpoint of the authors' code.

    All decoder layers are kept; how many are used, the number of classes and the input size belong into the authors'
    configuration, and are printed.

    Args:
        detector: what to write.
        output: a ``.pth`` file, or the folder to write ``model.pth`` in.

    Raises:
        UserError: if the authors' code cannot build the model.
    """
    path = output if output.suffix == ".pth" else output / "model.pth"
    model, facts = detector.model, facts_of(detector.model)
    write_authors_file(path, model.state_dict(), facts)
    used = model.decoder.num_eval_layers
    _say("checkpoint of the authors' code", path)
    _say("  num_classes", facts.num_classes)
    _say("  remap_mscoco_category", facts.num_classes == 80)
    _say("  eval_spatial_size", list(detector.image_size))
    if detector.letterbox:
        _say("  images", "keep their aspect ratio, with a black margin at the right or below")
    _say("  RTDETRTransformerv2.eval_idx", -1 if used == facts.decoder_layers else used - 1)
    _say("  RTDETRTransformerv2.num_points", list(facts.num_points))
    _say("  RTDETRTransformerv2.cross_attn_method", facts.method)
    return path


FORMATS: dict[str, Callable[[Detector, Path], Path]] = {
    "huggingface": export_huggingface,
    "reference": export_reference,
}


def facts_of(model: RTDETRv2) -> ArchitectureFacts:
    """The shape of a model, with what its weights do not show."""
    facts = infer_architecture(model.state_dict())
    encoder_heads = [module.num_heads for module in model.encoder.modules() if isinstance(module, SelfAttention)]
    methods = [module.method for module in model.decoder.modules() if isinstance(module, MultiScaleDeformableAttention)]
    return replace(
        facts,
        num_queries=model.decoder.num_queries,
        method=methods[0],
        encoder_heads=encoder_heads[0] if encoder_heads else facts.encoder_heads,
    )


def _output(output: str | None, source: str, format_name: str) -> Path:
    if output:
        return Path(output)
    folder = run_folder_of(source)
    if folder is None:
        raise UserError(f"'{source}' belongs to no run, so there is no place for its export: give output=FOLDER")
    return folder / "export" / format_name


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _say(name: str, value: object) -> None:
    shown = _short(value) if isinstance(value, Path) else str(value)
    Console().print(f"{name:40} {shown}", soft_wrap=True, highlight=False, markup=False)
