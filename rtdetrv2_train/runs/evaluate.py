"""Measuring a model on a data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from rtdetrv2_train.data.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.advice import worst_classes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.evaluation.table import print_advice
from rtdetrv2_train.runs.another_process import other_processes
from rtdetrv2_train.runs.build import (
    build_recipe,
    build_trainer,
    quiet_libraries,
    save_and_print_metrics,
)
from rtdetrv2_train.runs.configuration import command_line_overrides, keys_of, save_and_print, with_saved
from rtdetrv2_train.runs.folders import newest_run, run_folder_of
from rtdetrv2_train.runs.model_config import build_detector, use_decoder_layers
from rtdetrv2_train.runs.report import history_of, report
from rtdetrv2_train.training.callbacks import ValidationPictures
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.progress import Progress
from rtdetrv2_train.weights.checkpoint import Checkpoint
from rtdetrv2_train.weights.checkpoints import read_checkpoint
from rtdetrv2_train.weights.matching import load_weights

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> CocoMetrics | None:
    """Measure a run or a checkpoint; metrics and pictures go to this evaluation's folder.

    Args:
        config: as composed from ``conf/eval.yaml``.

    Returns:
        The metrics, on the first process; None on others.
    """
    if not (config.run or config.checkpoint):
        raise UserError("nothing to evaluate: give run=runs/... or checkpoint=...")
    checkpoint = read_checkpoint(_source(config))
    if folder := run_folder_of(_source(config)):
        config = with_saved(config, folder, ("model", "data", "augment", "recipe"), command_line_overrides())
    _look_as_trained(config, checkpoint, keys_of(command_line_overrides()))
    return _evaluate(config, checkpoint)


def evaluate_as_composed(config: DictConfig) -> CocoMetrics | None:
    """As :func:`evaluate`, with a configuration that holds what is taken from the run that is measured."""
    return _evaluate(config, read_checkpoint(_source(config)))


def _source(config: DictConfig) -> str:
    return str(newest_run(config.run)) if config.run else str(config.checkpoint)


def _evaluate(config: DictConfig, checkpoint: Checkpoint) -> CocoMetrics | None:
    quiet_libraries()
    source = _source(config)
    folder = run_folder_of(source)

    # classes come from the checkpoint, so the training set need not be there
    data: CocoDataModule = instantiate(config.data, batch_size=1, multiscale=None)
    data.leave_out_training_set()
    data.load()
    class_names = checkpoint.class_names or data.class_names
    category_ids = checkpoint.category_ids or data.category_ids
    if checkpoint.facts.num_classes != len(category_ids):
        raise UserError(
            f"'{source}' knows {checkpoint.facts.num_classes} classes, but "
            f"'{data.val_annotations.annotation_file}' has {len(category_ids)}: evaluate on a data set with the "
            "classes that it was trained on"
        )
    if unknown := set(data.category_ids) - set(category_ids):
        raise UserError(
            f"'{data.val_annotations.annotation_file}' has categories that '{source}' was not trained on: ids "
            f"{sorted(unknown)[:5]}; evaluate on a data set with the same categories"
        )
    model = build_detector(checkpoint.architecture or config.model.architecture, len(category_ids))
    for line in load_weights(model, checkpoint).summary():
        log.info(line)
    use_decoder_layers(model, config.num_eval_layers)

    output = Path(config.run_folder)
    pictures = ValidationPictures(output / "predictions.png", tuple(class_names), config.pictures)
    trainer = build_trainer(config.trainer, callbacks=[Progress(), pictures], logger=False, default_root_dir=output)
    module = DetectionModule(
        model=model,
        criterion=instantiate(config.model.criterion),
        recipe=build_recipe(config.recipe),
        parameter_rules={},
        evaluator=CocoEvaluator(data.val_annotations.ground_truth(), category_ids, config.evaluation.backend),
        max_detections=config.max_detections,
    )
    if trainer.is_global_zero:
        save_and_print(config, show=False)
    with other_processes(trainer, "evaluate", config.run_folder):
        trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero and module.metrics is not None:
        save_and_print_metrics(module.metrics, output)
        facts = {"model": str(config.model.name), "weights": str(source)}
        if folder:
            of_set = OmegaConf.select(config, "data.train.annotations")
            facts["trained on"] = str(Path(config.data.root) / of_set if of_set else config.data.root)
        history = history_of(folder) if folder else []
        title = "/".join(Path(source).parts[-2:])
        analysis = report(output, title, module.evaluator, data.val_annotations, model, data.image_size, facts, history)
        print_advice(worst_classes(analysis))
        Console().print(f"{'report':16} {os.path.relpath(output / 'report.html')}", soft_wrap=True)
        return module.metrics
    return None


def _look_as_trained(config: DictConfig, checkpoint: Checkpoint, given: Sequence[str]) -> None:
    """Show the model images of the size and shape that it was trained on, unless the command line gives others."""
    if "model.image_size" in given:
        config.data.image_size = config.model.image_size
    elif "data.image_size" not in given and checkpoint.image_size is not None:
        config.data.image_size = list(checkpoint.image_size)
    if "data.letterbox" not in given and checkpoint.image_size is not None:
        OmegaConf.update(config, "data.letterbox", checkpoint.letterbox, force_add=True)
