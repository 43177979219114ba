"""The report of a training run or an evaluation."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.evaluation.analysis.analysis import Analysis, analyse
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.tables import notes
from rtdetrv2_train.files import save_json
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.report.cut_outs import reader_of
from rtdetrv2_train.report.page import Subject, write_report
from rtdetrv2_train.runs.folder import ANALYSIS_FILE, HISTORY_FILE, REPORT_FILE

_TIMED = 10


def report(
    folder: Path,
    title: str,
    evaluator: CocoEvaluator,
    annotations: AnnotationTable,
    facts: Mapping[str, str],
    history: Sequence[Mapping[str, float]] = (),
) -> Analysis:
    """Write ``report.html`` and ``analysis.json``.

    Args:
        folder: where they go.
        title: of the page.
        evaluator: with the detections of the validation set.
        annotations: of that set.
        facts: about the model: name and value.
        history: the metrics of each epoch of its training, where they are known.
    """
    analysis = analyse(evaluator)
    boxes = sum(of_class.num_boxes for of_class in analysis.metrics.per_class)
    of_set = {"measured on": f"{annotations.annotation_file}: {analysis.metrics.images:,} images, {boxes:,} boxes"}
    if lines := notes(analysis.metrics):
        of_set["note"] = "; ".join(lines)
    names = dict(zip(annotations.image_ids.tolist(), annotations.file_names.tolist(), strict=True))
    subject = Subject(title, {**facts, **of_set}, reader_of(annotations), names, history)
    write_report(folder / REPORT_FILE, analysis, subject)
    save_json(folder / ANALYSIS_FILE, analysis.as_dict())
    return analysis


def history_of(folder: Path) -> list[dict[str, float]]:
    """The metrics of each epoch of a run; none where it kept no history."""
    path = folder / HISTORY_FILE
    return list(json.loads(path.read_text())) if path.exists() else []


def speed_and_size(model: nn.Module, image_size: tuple[int, int]) -> dict[str, str]:
    """Facts for :func:`report`: parameters, input size, and the time of one image.

    Args:
        model: on the device to measure on.
        image_size: (height, width) of its input.
    """
    device = next(model.parameters()).device
    image = torch.zeros(
        1, cast(RTDETRv2, model).architecture.in_channels, *image_size, dtype=torch.uint8, device=device
    )
    was_training = model.training
    model.eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(_TIMED + 2):
            began = time.perf_counter()
            model(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    model.train(was_training)
    typical = statistics.median(seconds[2:])
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    return {
        "input": f"{image_size[0]} x {image_size[1]} pixels",
        "parameters": f"{millions:.1f} million, {4 * millions:.0f} MB in single precision",
        "speed": f"{1000 * typical:.1f} ms an image ({1 / typical:.0f} a second), one at a time, on {name}",
    }
