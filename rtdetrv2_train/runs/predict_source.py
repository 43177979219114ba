"""Predicting on whatever holds images, and writing what was found."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from tqdm import tqdm

from rtdetrv2_train.data.coco_file import read_coco_file
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.compilation import compile_convolutions
from rtdetrv2_train.prediction.sources import Frame, Source, open_source
from rtdetrv2_train.prediction.writers import Setting, Writer, open_writers
from rtdetrv2_train.runs.folders import newest_run, run_folder_of
from rtdetrv2_train.runs.host_memory import keep_freed_memory
from rtdetrv2_train.runs.load import load_detector
from rtdetrv2_train.runs.predict import Detector

log = logging.getLogger(__name__)

_USUAL_THRESHOLD = 0.5


@dataclass(frozen=True)
class Summary:
    """What predicting on a source came to.

    Attributes:
        images: number of images predicted on.
        objects: number of objects found.
        skipped: names of images that could not be read.
        outputs: what was written.
        seconds: for everything.
        model_seconds: of these, in the model.
    """

    images: int
    objects: int
    skipped: tuple[str, ...]
    outputs: tuple[Path, ...]
    seconds: float
    model_seconds: float


def predict_source(
    detector: Detector,
    source: str | Path | int,
    output: str | Path,
    formats: Sequence[str] = ("images",),
    threshold: float = _USUAL_THRESHOLD,
    classes: Sequence[str] | None = None,
    max_detections: int = 300,
    tile: int | None = None,
    overlap: float = 0.2,
    batch_size: int = 8,
    annotations: str | Path | None = None,
    max_frames: int | None = None,
) -> Summary:
    """Find objects in a source and write them.

    Args:
        detector: what finds them.
        source: see :func:`rtdetrv2_train.prediction.sources.open_source`.
        output: folder to write in.
        formats: any of ``images``, ``coco``, ``yolo`` and ``csv``.
        threshold: objects with a score above it are given.
        classes: names of the classes to give; None for all.
        max_detections: at most so many objects of an image or a tile, the best.
        tile: see :meth:`Detector.predict`.
        overlap: see :meth:`Detector.predict`.
        batch_size: images at a time.
        annotations: COCO file whose image ids ``coco`` shall use; None to number images from 1.
        max_frames: images after which to stop; None for all.

    Raises:
        UserError: if there is no such source, format or class.
    """
    if unknown := sorted(set(classes or ()) - set(detector.class_names)):
        raise UserError(f"there is no class '{unknown[0]}': choose of {', '.join(detector.class_names)}")
    opened = open_source(source)
    setting = Setting(
        folder=Path(output),
        class_names=detector.class_names,
        category_ids=detector.category_ids or range(1, len(detector.class_names) + 1),
        image_ids=_image_ids(annotations) if annotations else {},
        frames_per_second=None if opened.video is None else opened.frames_per_second,
    )
    writers = open_writers(formats, setting)
    began, clock = time.perf_counter(), _ModelClock(detector)
    images, objects, skipped = 0, 0, []
    try:
        for batch in _batches(opened, batch_size, max_frames):
            readable = [(frame.name, frame.image) for frame in batch if frame.image is not None]
            skipped += [f"{frame.name}: {frame.problem}" for frame in batch if frame.image is None]
            found = detector.predict([image for _, image in readable], threshold, max_detections, tile, overlap)
            for (name, image), prediction in zip(readable, found, strict=True):
                chosen = prediction.of_classes(classes) if classes else prediction
                images, objects = images + 1, objects + len(chosen)
                for writer in writers:
                    writer.add(name, image, chosen)
    except KeyboardInterrupt:  # how one ends with a camera
        log.info("stopped; what was found so far is written")
    finally:
        clock.stop()
        outputs = _close(writers)
    return Summary(images, objects, tuple(skipped), outputs, time.perf_counter() - began, clock.seconds)


def predict_as_configured(config: DictConfig) -> Summary:
    """Predict, and say what was found, what was skipped and where everything lies.

    Args:
        config: as composed from ``conf/predict.yaml``.

    Raises:
        UserError: if there is no model or nothing to predict on.
    """
    if not (config.run or config.checkpoint):
        raise UserError("no model: give run=runs/... or checkpoint=...")
    open_source(config.source)  # complains before the model is loaded
    detector = load_detector(
        config.run or config.checkpoint,
        model=config.model,
        num_eval_layers=config.num_eval_layers,
        class_names=config.class_names,
        device=config.device,
        half=config.half,
    ).fused()
    if next(detector.model.parameters()).device.type == "cpu":
        keep_freed_memory()
    if config.compile:
        compile_convolutions(detector.model)
    threshold = config.threshold
    if threshold == "auto":
        threshold = best_threshold(config.run or config.checkpoint)
    summary = predict_source(
        detector,
        config.source,
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
    _say(summary, threshold)
    return summary


def best_threshold(source: str) -> float:
    """The threshold that a run's report recommends; 0.5 where there is none."""
    folder = run_folder_of(newest_run(source))
    path = folder / "analysis.json" if folder else None
    return float(json.loads(path.read_text())["threshold"]) if path and path.exists() else _USUAL_THRESHOLD


class _ModelClock:
    """Measures the time that a detector spends in its model."""

    def __init__(self, detector: Detector) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._device = next(detector.model.parameters()).device
        self._hooks = [
            detector.model.register_forward_pre_hook(self._start),
            detector.model.register_forward_hook(self._end),
        ]

    def _start(self, *_: Any) -> None:
        self._began = self._now()

    def _end(self, *_: Any) -> None:
        self.seconds += self._now() - self._began

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def stop(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _batches(source: Source, size: int, most: int | None) -> Iterator[list[Frame]]:
    total = len(source) or None
    if most is not None:
        total = min(total or most, most)
    frames = islice(iter(source), most)
    with tqdm(total=total, unit=" images", desc="predicting") as bar:
        while batch := list(islice(frames, size)):
            yield batch
            bar.update(len(batch))


def _close(writers: Sequence[Writer]) -> tuple[Path, ...]:
    return tuple(writer.close() for writer in writers)


def _image_ids(annotations: str | Path) -> dict[str, int]:
    content = read_coco_file(Path(annotations), Path(annotations).parent)
    return dict(zip(content.file_names.tolist(), content.image_ids.tolist(), strict=True))


def _say(summary: Summary, threshold: float) -> None:
    console = Console()
    for line in summary.skipped:
        console.print(f"skipped {line}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    rate, bare = (summary.images / max(s, 1e-9) for s in (summary.seconds, summary.model_seconds))
    skipped = f", {len(summary.skipped)} skipped" if summary.skipped else ""
    console.print(f"{summary.objects} objects above {threshold:.2f} in {summary.images} images{skipped}")
    console.print(f"{rate:.3g} images a second with reading and writing; the model alone {bare:.3g}")
    for path in summary.outputs:
        console.print(f"written {os.path.relpath(path)}", soft_wrap=True, highlight=False, markup=False)
