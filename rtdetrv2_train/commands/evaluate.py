"""``rtdetrv2 eval``: measuring a model on a data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint
from rtdetrv2_train.checkpoints.loading import load_weights
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.commands.building import (
    build_recipe,
    build_trainer,
    other_ranks,
    quiet_libraries,
    resolved_trainer,
    save_and_print_metrics,
)
from rtdetrv2_train.commands.evaluate_exported import evaluate_exported
from rtdetrv2_train.commands.run_data import evaluation_data
from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.analysis.advice import worst_classes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.evaluation.tables import print_advice
from rtdetrv2_train.inference.exported import load_exported
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.runs.claim import claimed_folder
from rtdetrv2_train.runs.configuration import keys_of, save_config, with_saved
from rtdetrv2_train.runs.folder import PICTURES_FILE, REPORT_FILE, newest_run, run_folder_of
from rtdetrv2_train.runs.model_configuration import configured_architecture
from rtdetrv2_train.training.callbacks.pictures import ValidationPictures
from rtdetrv2_train.training.callbacks.progress import Progress
from rtdetrv2_train.training.module import DetectionModule

log = logging.getLogger(__name__)


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Evaluate as configured."""
    evaluate(config, overrides)


def evaluate(config: DictConfig, overrides: Sequence[str]) -> CocoMetrics | None:
    """Measure a run or a checkpoint; metrics and pictures go to this evaluation's folder.

    Args:
        config: as composed from ``conf/eval.yaml``.
        overrides: those of the command line, which count more than what the run has saved.

    Returns:
        The metrics, on rank 0; None on others.
    """
    if not (config.run or config.checkpoint):
        raise UserError("nothing to evaluate: give run=runs/... or checkpoint=...")
    exported = load_exported(_source(config))
    checkpoint = None if exported else read_checkpoint(_source(config))
    if folder := run_folder_of(_source(config)):
        config = with_saved(config, folder, ("model", "data", "augment", "recipe"), overrides)
    if checkpoint is not None:
        _look_as_trained(config, checkpoint, keys_of(overrides))
    with claimed_folder(config, overrides, Path("runs", "eval"), "eval.log") as claimed:
        config.run_folder = str(claimed.path)
        if exported is not None:
            return evaluate_exported(exported, _source(config), config, keys_of(overrides), claimed.keep)
        assert checkpoint is not None
        return _evaluate(config, checkpoint, claimed.keep)


def evaluate_as_composed(config: DictConfig) -> CocoMetrics | None:
    """As :func:`evaluate`, with a configuration that holds what is taken from the run that is measured."""
    return _evaluate(config, read_checkpoint(_source(config)), lambda: None)


def _source(config: DictConfig) -> str:
    return str(newest_run(config.run)) if config.run else str(config.checkpoint)


def _evaluate(config: DictConfig, checkpoint: Checkpoint, started: Callable[[], None]) -> CocoMetrics | None:
    quiet_libraries()
    settings = resolved_trainer(config.trainer)
    with other_ranks("evaluate", config, settings):
        return _measure(config, checkpoint, settings, started)


def _measure(
    config: DictConfig, checkpoint: Checkpoint, settings: dict[str, object], started: Callable[[], None]
) -> CocoMetrics | None:
    source = _source(config)
    folder = run_folder_of(source)

    # classes come from the checkpoint, so the training set need not be there
    data = evaluation_data(config, source)
    data.take_classes(checkpoint.classes_beside(data.val_annotations.classes, config.class_names))
    architecture = checkpoint.architecture
    if checkpoint.card is None:
        architecture = configured_architecture(config.model, data.num_classes, in_channels=data.channels)
    model = RTDETRv2(replace(architecture, image_size=data.image_size))
    for line in load_weights(model, checkpoint).summary():
        log.info(line)
    model.use_decoder_layers(config.num_eval_layers)

    output = Path(config.run_folder)
    pictures = ValidationPictures(output / PICTURES_FILE, data.class_names, config.pictures)
    trainer = build_trainer(settings, callbacks=[Progress(), pictures], logger=False, default_root_dir=output)
    module = DetectionModule(
        model=model,
        criterion=Criterion(),  # whose loss nobody asks for
        recipe=build_recipe(config.recipe),
        parameter_rules={},
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, **config.evaluation),
        max_detections=config.max_detections,
    )
    if trainer.is_global_zero:
        save_config(config)
    started()
    trainer.validate(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero or module.metrics is None:
        return None
    from rtdetrv2_train.commands.reporting import (  # matplotlib, which no step waits for
        history_of,
        report,
        speed_and_size,
    )

    save_and_print_metrics(module.metrics, output)
    facts = {"model": str(config.model.name), "weights": str(source)}
    if folder:
        of_set = OmegaConf.select(config, "data.train.annotations")
        facts["trained on"] = str(Path(config.data.root) / of_set if of_set else config.data.root)
    history = history_of(folder) if folder else []
    title = "/".join(Path(source).parts[-2:])
    facts |= speed_and_size(model, data.image_size)
    analysis = report(output, title, module.evaluator, data.val_annotations, facts, history)
    print_advice(worst_classes(analysis, history=history))
    print_line(f"{'report':16} {os.path.relpath(output / REPORT_FILE)}")
    return module.metrics


def _look_as_trained(config: DictConfig, checkpoint: Checkpoint, given: Sequence[str]) -> None:
    """Show the model images of the size and shape that it was trained on, unless the command line gives others."""
    if "model.image_size" in given:
        config.data.image_size = config.model.image_size
    elif "data.image_size" not in given and checkpoint.image_size is not None:
        config.data.image_size = list(checkpoint.image_size)
    for key, value in (("letterbox", checkpoint.letterbox), ("pixel_range", checkpoint.pixel_range)):
        if f"data.{key}" not in given and checkpoint.card is not None:
            OmegaConf.update(config, f"data.{key}", value, force_add=True)
    channels = checkpoint.architecture.in_channels
    if "data.channels" in given and config.data.channels != channels:
        raise UserError(
            f"data.channels={config.data.channels}, but '{checkpoint.source}' takes {channels}: leave data.channels out"
        )
    OmegaConf.update(config, "data.channels", channels, force_add=True)
