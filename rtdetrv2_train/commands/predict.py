"""``rtdetrv2 predict``: find objects in images or a video, and write them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.images.reading import RGB
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.loading import load_detector
from rtdetrv2_train.inference.predicting import Summary, predict_source
from rtdetrv2_train.inference.sources import open_source
from rtdetrv2_train.model.compilation import compile_convolutions
from rtdetrv2_train.system.allocator import keep_freed_memory


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Predict; exits with status 1 if some images could not be read."""
    if predict(config).skipped:
        sys.exit(1)


def predict(config: DictConfig) -> Summary:
    """Predict, and say what was found, what was skipped and where everything lies.

    Args:
        config: as composed from ``conf/predict.yaml``.

    Raises:
        UserError: if there is no model or nothing to predict on.
    """
    model = config.run or config.checkpoint
    if not model:
        raise UserError("no model: give run=runs/... or checkpoint=...")
    source = open_source(config.source, arrays=True)  # complains before the model is loaded
    detector = load_detector(
        model,
        model=config.get("model"),
        num_eval_layers=config.num_eval_layers,
        class_names=config.class_names,
        device=config.device,
        half=config.half,
    ).fused()
    if detector.channels == RGB and Path(str(config.source)).is_dir():
        source = source.without_arrays()
    if detector.device.type == "cpu":
        keep_freed_memory()
    if config.compile:
        compile_convolutions(detector.pytorch_model)
    threshold = detector.threshold if config.threshold == "auto" else config.threshold
    summary = predict_source(
        detector,
        source,
        config.output,
        config.formats,
        threshold,
        config.classes,
        config.max_detections,
        config.tile,
        config.overlap,
        config.batch_size,
        config.annotations,
        config.max_frames,
    )
    _print(summary, threshold)
    return summary


def _print(summary: Summary, threshold: float) -> None:
    for line in summary.skipped:
        print_line(f"skipped {line}", "yellow")
    rate, bare = (summary.images / max(s, 1e-9) for s in (summary.seconds, summary.model_seconds))
    skipped = f", {len(summary.skipped)} skipped" if summary.skipped else ""
    print_line(f"{summary.objects} objects above {threshold:.2f} in {summary.images} images{skipped}")
    print_line(f"{rate:.3g} images a second with reading and writing; the model alone {bare:.3g}")
    for path in summary.outputs:
        print_line(f"written {os.path.relpath(path)}")
