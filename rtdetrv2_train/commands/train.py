"""``rtdetrv2 train``: a training run, from configuration to finished model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor, ModelCheckpoint
from omegaconf import DictConfig

from rtdetrv2_train.checkpoints.loading import load_weights
from rtdetrv2_train.checkpoints.model_folder import ModelCard, write_model_folder
from rtdetrv2_train.checkpoints.pretrained_backbones import load_pretrained_backbone
from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.commands.adapting import (
    augmentation_schedule,
    is_short,
    keep_given_length,
    length_of,
    settle_length,
    settle_loss,
)
from rtdetrv2_train.commands.building import (
    build_recipe,
    build_trainer,
    ordered,
    other_ranks,
    quiet_libraries,
    resolved_trainer,
    save_and_print_metrics,
)
from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.inspection.essential import essential_lines
from rtdetrv2_train.data.inspection.object_sizes import size_advice
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.analysis.advice import worst_classes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import CocoMetrics, measured
from rtdetrv2_train.evaluation.tables import print_advice
from rtdetrv2_train.inference.detector import names_in
from rtdetrv2_train.model.compilation import compile_convolutions
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.gradient_checkpointing import enable_gradient_checkpointing
from rtdetrv2_train.runs.claim import claimed_folder
from rtdetrv2_train.runs.configuration import build, differences, not_followed, plain, save_config, with_saved
from rtdetrv2_train.runs.folder import MODEL_FOLDER, PICTURES_FILE, REPORT_FILE, SPLIT_FILE, run_folder_of
from rtdetrv2_train.runs.model_configuration import configured_architecture
from rtdetrv2_train.runs.resume import checkpoint_to_resume
from rtdetrv2_train.training.batch_size import BatchSize, share_out
from rtdetrv2_train.training.callbacks.pictures import ValidationPictures
from rtdetrv2_train.training.find_batch_size import find_batch_size
from rtdetrv2_train.training.hyperparameters import log_hyperparameters
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import AUTO

log = logging.getLogger(__name__)

SECTIONS_OF_A_RUN = (
    *("model", "data", "augment", "recipe", "trainer", "logger", "callbacks", "name", "seed", "evaluation"),
    *("init_from", "compile", "gradient_checkpointing", "freeze"),
)


@dataclass(frozen=True)
class TrainedRun:
    """What a training run leaves.

    Attributes:
        folder: of the run.
        metrics: of its best epoch; None if nothing was validated.
    """

    folder: Path
    metrics: CocoMetrics | None


def main(config: DictConfig, overrides: Sequence[str]) -> float | None:
    """Train; gives AP, for sweeps; None where it was not measured."""
    trained = train(config, overrides)
    return measured(trained.metrics.AP) if trained and trained.metrics else None


def train(config: DictConfig, overrides: Sequence[str]) -> TrainedRun | None:
    """Train, keep the best model, report.

    Args:
        config: as composed from ``conf/train.yaml``.
        overrides: those of the command line, which count more than what a resumed run has saved.

    Returns:
        The run, on rank 0; None on other ranks.
    """
    with claimed_folder(config, overrides, Path("runs", str(config.name)), "train.log") as folder:
        config.run_folder = str(folder.path)
        resumed = checkpoint_to_resume(config.resume, folder.path)
        if resumed and (run := run_folder_of(resumed)):
            config = _as_saved(config, run, overrides)
        keep_given_length(config, {override.lstrip("+").partition("=")[0] for override in overrides})
        return _train_on_all_ranks(config, folder.keep)


def train_as_composed(config: DictConfig) -> TrainedRun | None:
    """As :func:`train` on another rank, with the configuration that rank 0 has composed."""
    return _train_on_all_ranks(config, lambda: None)


def _as_saved(config: DictConfig, run: Path, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a run that is resumed; says what differs from before."""
    before, joined = (with_saved(config, run, SECTIONS_OF_A_RUN, given) for given in ((), overrides))
    for name, (old, new) in differences(before, joined, SECTIONS_OF_A_RUN).items():
        log.info("resuming with %s = %s instead of %s", name, new, old)
    for name, key in not_followed(joined, config, overrides).items():
        log.warning("%s does not change with %s, as it was given when the run began: give it too", name, key)
    if "sweep" not in config:
        (joined.get("callbacks") or {}).pop("pruning", None)  # of a trial that is resumed by itself
    return joined


def _train_on_all_ranks(config: DictConfig, started: Callable[[], None]) -> TrainedRun | None:
    if config.compile and config.gradient_checkpointing:
        raise UserError("compile=true chooses for itself what to compute again: leave out gradient_checkpointing=true")
    quiet_libraries()
    settings = resolved_trainer(config.trainer)

    def on_train_start(trainer: Trainer, _: LightningModule) -> None:
        if trainer.is_global_zero:
            save_config(config)
            started()

    with other_ranks("train", config, settings):
        seed_everything(config.seed, workers=True, verbose=False)
        return _train(
            build_trainer(settings, **_attachments(config, LambdaCallback(on_train_start=on_train_start))), config
        )


def _train(trainer: Trainer, config: DictConfig) -> TrainedRun | None:
    resumed = checkpoint_to_resume(config.resume, config.run_folder)
    most = config.recipe.max_batch_size_per_device
    batch_size = _share_out(trainer, config, None if most == AUTO else most)
    trainer.accumulate_grad_batches = batch_size.accumulated
    data: CocoDataModule = build(
        config.data, batch_size=batch_size.per_device, split_file=Path(config.run_folder) / SPLIT_FILE
    )
    if trainer.is_global_zero:
        _announce(config, batch_size)
    data.load()
    num_images = len(data.train_annotations)
    if trainer.is_global_zero:
        _warn_of_data(data)
    settle_length(config, trainer, num_images)

    model = RTDETRv2(configured_architecture(config.model, data.num_classes, data.image_size, data.channels))
    if trainer.is_global_zero and (note := batch_size.batchnorm_note(model, config.trainer.sync_batchnorm)):
        log.warning(note)
    pretrained = _start_from_weights(model, config, data, is_new=resumed is None)
    _freeze(model, config, pretrained, resumed is not None)
    if config.export.check and trainer.is_global_zero:
        from rtdetrv2_train.commands.deployment import check_export  # which few runs need

        check_export(model, data, config.export.format)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    if config.compile:
        compile_convolutions(model)
    settle_loss(config, num_images)
    data.schedule = augmentation_schedule(data.schedule, config, num_images, pretrained)
    module = DetectionModule(
        model=model,
        criterion=build(config.model.criterion),
        recipe=build_recipe(config.recipe),
        parameter_rules=plain(config.model.parameter_rules),
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, **config.evaluation),
        from_scratch=not pretrained,
        card=ModelCard(model.architecture, data.class_names, data.category_ids, data.letterbox, data.pixel_range),
    )
    if most == AUTO:
        share = batch_size.accumulated * batch_size.per_device
        batch_size = _share_out(trainer, config, find_batch_size(trainer, module, data, share))
        trainer.accumulate_grad_batches, data.batch_size = batch_size.accumulated, batch_size.per_device
    _name_classes(trainer, data.class_names)
    trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    return _finish(trainer, module, data, config)


def _share_out(trainer: Trainer, config: DictConfig, most: int | None) -> BatchSize:
    """The total batch, shared out over devices with at most so many images at once."""
    accumulated = config.trainer.accumulate_grad_batches
    return share_out(config.recipe.total_batch_size, trainer.world_size, accumulated, most)


def _announce(config: DictConfig, batch_size: BatchSize) -> None:
    """Three lines of the configuration; all of it is in the run's folder."""
    height, width = config.data.image_size
    log.info("%s at %d x %d for %s, %s", config.model.name, height, width, length_of(config), batch_size)
    log.info("data: %s", config.data.root)
    log.info("run: %s (config.yaml has every setting)", os.path.relpath(config.run_folder))


def _warn_of_data(data: CocoDataModule) -> None:
    """Say what looks wrong with the annotations, as far as that takes no time."""
    for line in essential_lines(data.train_annotations, data.val_annotations):
        log.warning(line)
    if advice := size_advice(data.train_annotations, data.image_size):
        log.warning(advice)


def _finish(trainer: Trainer, module: DetectionModule, data: CocoDataModule, config: DictConfig) -> TrainedRun | None:
    """Measure the best checkpoint, and keep it as a model that can be used without this run."""
    folder = Path(config.run_folder)
    checkpoint = trainer.checkpoint_callback
    best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
    if best:
        module.load_state_dict(load_tensors(best)["state_dict"])
    trainer.validate(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return None
    assert module.card is not None
    write_model_folder(folder / MODEL_FOLDER, module.model.state_dict(), module.card)
    if module.metrics is None:
        return TrainedRun(folder, None)
    from rtdetrv2_train.commands.reporting import (  # matplotlib, which no step waits for
        history_of,
        report,
        speed_and_size,
    )

    save_and_print_metrics(module.metrics, folder)
    history = history_of(folder)
    analysis = report(
        folder,
        str(config.name),
        module.evaluator,
        data.val_annotations,
        {**_facts(config, data), **speed_and_size(module.model, data.image_size)},
        history,
    )
    card = replace(module.card, threshold=analysis.threshold)  # which only the report finds
    write_model_folder(folder / MODEL_FOLDER, module.model.state_dict(), card)
    print_advice(worst_classes(analysis, history=history))
    log_hyperparameters(trainer.loggers, config, module.metrics)
    _print_paths(folder, best, module.metrics)
    return TrainedRun(folder, module.metrics)


def _facts(config: DictConfig, data: CocoDataModule) -> dict[str, str]:
    """What the report says was trained on what."""
    length = length_of(config)
    return {
        "run": os.path.relpath(config.run_folder),
        "model": str(config.model.name),
        "trained on": f"{data.train_annotations.annotation_file}: {len(data.train_annotations):,} images, "
        f"{len(data.train_annotations.boxes):,} boxes of {data.num_classes} classes",
        length.unit: str(length.amount),
        "total batch size": str(config.recipe.total_batch_size),
        "started from": str(config.init_from or config.model.pretrained or "scratch"),
        "seed": str(config.seed),
    }


def _print_paths(folder: Path, best: str, metrics: CocoMetrics) -> None:
    """Print the paths that matter, of what there is."""
    here = os.path.relpath(folder)
    why = "" if metrics.AP else ", the last one, as AP was 0 throughout"
    lines = {
        "run": here,
        "best checkpoint": f"{os.path.relpath(best)}{why}" if best else "none, these are the last weights",
        "model": f"{here}/{MODEL_FOLDER}",
        "report": f"{here}/{REPORT_FILE}",
        "pictures": f"{here}/{PICTURES_FILE}" if (folder / PICTURES_FILE).exists() else "",
        "curves": f"tensorboard --logdir {here}" if any(folder.rglob("events.out.tfevents*")) else "",
        "evaluate again": f"rtdetrv2 eval run={here}",
    }
    for name, value in lines.items():
        if value:
            print_line(f"{name:16} {value}")


def _start_from_weights(model: RTDETRv2, config: DictConfig, data: CocoDataModule, is_new: bool) -> bool:
    """Load the weights that the configuration of a new run asks for, and say whether there were any."""
    if not is_new:
        return bool(config.init_from or config.model.pretrained)
    if config.init_from:
        for line in load_weights(model, config.init_from, data.class_names, config.init_classes).summary():
            log.info(line)
        return True
    source = config.model.pretrained
    if source is None:
        return False
    try:
        log.info(load_pretrained_backbone(model.backbone, config.model.release if source == "auto" else source))
    except UserError as error:
        if source != "auto" or not is_short(config, len(data.train_annotations)):
            raise
        log.warning("starting from scratch, which a short run like this can: %s", error)
        config.model.pretrained = None  # so that a resumed run knows
        return False
    return True


def _freeze(model: RTDETRv2, config: DictConfig, pretrained: bool, is_resumed: bool) -> None:
    """Freeze the parts that the configuration names, which must have trained weights."""
    names = [] if config.freeze is None else names_in(config.freeze)
    for name in names:
        if not (config.init_from or is_resumed or (pretrained and name.startswith("backbone"))):
            raise UserError(f"freeze={name} would keep random weights: start from trained ones, init_from=")
    model.freeze(names)


def _attachments(config: DictConfig, further: Callback) -> dict[str, Any]:
    """Callbacks and loggers."""
    loggers = [build(logger) for logger in (config.get("logger") or {}).values() if logger]
    callbacks = ordered(build(callback) for callback in (config.get("callbacks") or {}).values() if callback)
    if not loggers:  # without which Lightning's refuses to run
        callbacks = [callback for callback in callbacks if not isinstance(callback, LearningRateMonitor)]
    return {
        "callbacks": [*callbacks, further],
        "logger": loggers or False,
        "default_root_dir": config.run_folder,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    }


def _name_classes(trainer: Trainer, class_names: tuple[str, ...]) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ValidationPictures):
            callback.class_names = class_names
