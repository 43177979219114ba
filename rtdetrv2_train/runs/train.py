"""A training run, from configuration to finished model."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from rtdetrv2_train.data.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.advice import worst_classes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.table import print_advice
from rtdetrv2_train.model.compilation import compile_convolutions
from rtdetrv2_train.model.recomputation import run_blocks_again
from rtdetrv2_train.runs.another_process import other_processes
from rtdetrv2_train.runs.batch_split import BatchSplit, split_batch
from rtdetrv2_train.runs.build import (
    build_recipe,
    build_trainer,
    quiet_libraries,
    save_and_print_metrics,
)
from rtdetrv2_train.runs.configuration import (
    command_line_overrides,
    plain,
    save_and_print,
    with_saved,
)
from rtdetrv2_train.runs.folders import run_folder_of
from rtdetrv2_train.runs.model_config import build_detector
from rtdetrv2_train.runs.report import history_of, report
from rtdetrv2_train.runs.resume import checkpoint_to_resume
from rtdetrv2_train.training.callbacks import ValidationPictures
from rtdetrv2_train.training.device_capacity import images_that_fit
from rtdetrv2_train.training.hyperparameters import log_hyperparameters
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import AUTO
from rtdetrv2_train.weights.backbones import load_pretrained_backbone
from rtdetrv2_train.weights.matching import load_weights
from rtdetrv2_train.weights.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.weights.safe_loading import load_tensors

log = logging.getLogger(__name__)

SECTIONS_OF_A_RUN = ("model", "data", "augment", "recipe", "trainer", "logger", "callbacks", "name", "seed")


def train(config: DictConfig) -> float | None:
    """Train, keep the best model, report.

    Args:
        config: as composed from ``conf/train.yaml``.

    Returns:
        AP of the best epoch; None if nothing was validated.
    """
    resumed = checkpoint_to_resume(config.resume, config.run_folder)
    if resumed and (folder := run_folder_of(resumed)):
        config = with_saved(config, folder, SECTIONS_OF_A_RUN, command_line_overrides())
    return train_as_composed(config)


def train_as_composed(config: DictConfig) -> float | None:
    """As :func:`train`, with a configuration that holds what is taken from the run that is resumed."""
    if config.compile and config.checkpointing:
        raise UserError("compile=true chooses for itself what to compute again: leave out checkpointing=true")
    quiet_libraries()
    seed_everything(config.seed, workers=True, verbose=False)
    trainer = build_trainer(config.trainer, **_attachments(config))
    with other_processes(trainer, "train", config.run_folder):
        return _train(trainer, config)


def _train(trainer: Trainer, config: DictConfig) -> float | None:
    resumed = checkpoint_to_resume(config.resume, config.run_folder)
    most = config.recipe.max_device_batch_size
    split = _split(trainer, config, None if most == AUTO else most)
    trainer.accumulate_grad_batches = split.accumulated
    data: CocoDataModule = instantiate(config.data, batch_size=split.batch_size)
    if trainer.is_global_zero:
        save_and_print(config)
        log.info(split)
    data.load()

    model = build_detector(config.model.architecture, data.num_classes)
    if trainer.is_global_zero and (note := split.about_norms(model, config.trainer.sync_batchnorm)):
        log.warning(note)
    pretrained = _start_from_weights(model, config, data)
    if config.checkpointing:
        run_blocks_again(model)
    if config.compile:
        compile_convolutions(model)
    short = config.recipe.short_run
    if not pretrained and estimated_steps(config, len(data.train_annotations)) < short.below_steps:
        data.schedule = data.schedule.stopped_by(short.from_scratch_augmentation_share)
    architecture = plain(config.model.architecture)
    card = ModelCard(architecture, data.class_names, data.category_ids, data.image_size, data.letterbox)
    module = DetectionModule(
        model=model,
        criterion=instantiate(config.model.criterion),
        recipe=build_recipe(config.recipe),
        parameter_rules=plain(config.model.parameter_rules),
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, config.evaluation.backend),
        from_scratch=not pretrained,
        card=card,
    )
    if most == AUTO:
        split = _split(trainer, config, images_that_fit(trainer, module, data, split.accumulated * split.batch_size))
        trainer.accumulate_grad_batches, data.batch_size = split.accumulated, split.batch_size
    _name_classes(trainer, data.class_names)
    trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    return _finish(trainer, module, data, card, config)


def _split(trainer: Trainer, config: DictConfig, most: int | None) -> BatchSplit:
    """The total batch, shared out over processes with at most so many images at once."""
    accumulated = config.trainer.accumulate_grad_batches
    return split_batch(config.recipe.total_batch_size, trainer.world_size, accumulated, most)


def _finish(
    trainer: Trainer, module: DetectionModule, data: CocoDataModule, card: ModelCard, config: DictConfig
) -> float | None:
    """Measure the best checkpoint, and keep it as a model that can be used without this run."""
    folder = Path(config.run_folder)
    checkpoint = trainer.checkpoint_callback
    best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
    if best:
        module.load_state_dict(load_tensors(best)["state_dict"])
    trainer.validate(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return None
    write_model_folder(folder / "model", module.model.state_dict(), card)
    if module.metrics is None:
        return None
    save_and_print_metrics(module.metrics, folder)
    analysis = report(
        folder,
        str(config.name),
        module.evaluator,
        data.val_annotations,
        module.model,
        data.image_size,
        _facts(config, data),
        history_of(folder),
    )
    print_advice(worst_classes(analysis))
    log_hyperparameters(trainer.loggers, config, module.metrics)
    _say_where(folder, best)
    return module.metrics.AP


def _facts(config: DictConfig, data: CocoDataModule) -> dict[str, str]:
    """What the report says was trained on what."""
    return {
        "run": os.path.relpath(config.run_folder),
        "model": str(config.model.name),
        "trained on": f"{data.train_annotations.annotation_file}: {len(data.train_annotations):,} images, "
        f"{len(data.train_annotations.boxes):,} boxes of {data.num_classes} classes",
        "epochs": str(config.trainer.max_epochs),
        "total batch size": str(config.recipe.total_batch_size),
        "started from": str(config.init_from or config.model.pretrained or "scratch"),
        "seed": str(config.seed),
    }


def _say_where(folder: Path, best: str) -> None:
    """Print the paths that matter."""
    here = os.path.relpath(folder)
    lines = {
        "run": here,
        "best checkpoint": os.path.relpath(best) if best else "none, these are the last weights",
        "model": f"{here}/model",
        "report": f"{here}/report.html",
        "pictures": f"{here}/predictions.png",
        "curves": f"tensorboard --logdir {here}",
        "evaluate again": f"python eval.py run={here}",
    }
    for name, value in lines.items():
        Console().print(f"{name:16} {value}", soft_wrap=True)


def _start_from_weights(model: nn.Module, config: DictConfig, data: CocoDataModule) -> bool:
    """Load the weights that the configuration asks for, and say whether there were any."""
    if config.init_from:
        for line in load_weights(model, config.init_from, data.class_names).summary():
            log.info(line)
        return True
    source = config.model.pretrained
    if source is None:
        return False
    try:
        log.info(
            load_pretrained_backbone(
                model.get_submodule("backbone"), config.model.release if source == "auto" else source
            )
        )
    except UserError as error:
        steps = estimated_steps(config, len(data.train_annotations))
        if source != "auto" or steps >= config.recipe.short_run.below_steps:
            raise
        log.warning("starting from scratch, which a short run like this can: %s", error)
        return False
    return True


def estimated_steps(config: DictConfig, num_images: int) -> int:
    """Optimizer steps of the run that the configuration describes."""
    steps = max(num_images // config.recipe.total_batch_size, 1) * config.trainer.max_epochs
    return min(steps, config.trainer.max_steps) if config.trainer.max_steps > 0 else steps


def _attachments(config: DictConfig) -> dict[str, Any]:
    """Callbacks and loggers."""
    callbacks = [instantiate(callback) for callback in (config.callbacks or {}).values()]
    loggers = [instantiate(logger) for logger in (config.logger or {}).values()]
    return {"callbacks": callbacks, "logger": loggers or False, "default_root_dir": config.run_folder}


def _name_classes(trainer: Trainer, class_names: tuple[str, ...]) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ValidationPictures):
            callback.class_names = class_names
