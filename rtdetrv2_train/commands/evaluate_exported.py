"""Measuring an exported model on a data set, in its runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.classes import Classes, usual_ids
from rtdetrv2_train.commands.building import save_and_print_metrics
from rtdetrv2_train.commands.run_data import evaluation_data
from rtdetrv2_train.console import print_line
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.analysis.advice import worst_classes
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.evaluation.tables import print_advice
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.inference.exported import ExportedModel, refuse_settings
from rtdetrv2_train.inference.measuring import collect_detections
from rtdetrv2_train.inference.runtimes import RUNTIMES
from rtdetrv2_train.runs.configuration import save_config
from rtdetrv2_train.runs.folder import REPORT_FILE
from rtdetrv2_train.runs.processes import devices_and_nodes

_SETTLED = ("model.image_size", "data.image_size", "data.letterbox", "data.pixel_range", "data.channels")


def evaluate_exported(
    detector: Detector, source: str, config: DictConfig, given: Sequence[str], started: Callable[[], None]
) -> CocoMetrics:
    """Measure an exported model; metrics and report go to the evaluation's folder.

    Args:
        detector: the exported model.
        source: its file.
        config: as composed from ``conf/eval.yaml``, with the data of the model's run.
        given: keys of the command line.
        started: called when the data set is read.

    Raises:
        UserError: if a setting would have to be that of the export, or several processes would measure the same.
    """
    if (launched := devices_and_nodes()) is not None and launched != (1, 1):
        raise UserError("one process measures an exported model: start it without torchrun or SLURM's tasks")
    refuse_settings(source, num_eval_layers=config.num_eval_layers, class_names=config.class_names)
    refuse_settings(source, **{key: key in given for key in _SETTLED})
    card = cast(ExportedModel, detector.model).card
    for key in ("letterbox", "pixel_range", "channels"):
        OmegaConf.update(config, f"data.{key}", getattr(card, key), force_add=True)
    config.data.image_size = list(card.image_size)
    data = evaluation_data(config, source)
    data.take_classes(Classes(detector.class_names, detector.category_ids or usual_ids(detector.class_names), source))
    save_config(config)
    started()
    evaluator = CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids, **config.evaluation)
    collect_detections(detector, data.val_annotations, evaluator, config.max_detections)
    metrics = evaluator.compute()
    from rtdetrv2_train.commands.reporting import report  # matplotlib, which no step waits for

    output = Path(config.run_folder)
    save_and_print_metrics(metrics, output)
    facts = {
        "model": source,
        "format": f"{card.format}, {card.precision}, in {RUNTIMES[card.format].title}",
        "input": f"{card.image_size[0]} x {card.image_size[1]} pixels",
    }
    if "milliseconds" in card.verified:
        facts["speed"] = f"{card.verified['milliseconds']} ms a call, where it was exported"
    analysis = report(output, "/".join(Path(source).parts[-2:]), evaluator, data.val_annotations, facts)
    print_advice(worst_classes(analysis))
    print_line(f"{'report':16} {os.path.relpath(output / REPORT_FILE)}")
    return metrics
