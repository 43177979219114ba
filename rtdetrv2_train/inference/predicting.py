"""Predicting on a source of images, and writing the detections."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.coco import read_coco_file
from rtdetrv2_train.data.images.reading import RGB, PixelRange
from rtdetrv2_train.data.survey import measured_range
from rtdetrv2_train.errors import UserError, check_number, nearest
from rtdetrv2_train.inference.detector import Detector, names_in
from rtdetrv2_train.inference.ids import category_ids_of, image_ids_of
from rtdetrv2_train.inference.sources import Frame, Source, open_source
from rtdetrv2_train.inference.writers import Setting, Writer, open_writers

log = logging.getLogger(__name__)

_LOOKED_AT = 10  # images, for the range of their values


@dataclass(frozen=True)
class Summary:
    """Counts, files and times of predicting on a source.

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
    source: str | Path | int | Iterable[str | Path] | Source,
    output: str | Path,
    formats: str | Sequence[str] = ("images",),
    threshold: float | None = None,
    classes: str | Sequence[str] | None = None,
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
        source: see :func:`rtdetrv2_train.inference.sources.open_source`.
        output: folder to write in.
        formats: any of ``images``, ``coco``, ``yolo`` and ``csv``.
        threshold: detections with a score above it are written; None for the detector's own.
        classes: names of the classes to write; None for all.
        max_detections: the most detections of an image or a tile, best first.
        tile: see :meth:`Detector.predict`.
        overlap: see :meth:`Detector.predict`.
        batch_size: images at a time; with tiles it is one.
        annotations: COCO file whose ids of images and categories ``coco`` shall use; None to number images from 1.
        max_frames: images after which to stop; None for all.

    Raises:
        UserError: if there is no such source, format or class, or the annotations leave an id in doubt.
    """
    check_number("batch_size", batch_size, 1)
    if max_frames is not None:
        check_number("max_frames", max_frames, 1)
    wanted = None if classes is None else names_in(classes)
    if unknown := sorted(set(wanted or ()) - set(detector.class_names)):
        known = ", ".join(detector.class_names)
        raise UserError(
            f"there is no class '{unknown[0]}': {nearest(unknown[0], detector.class_names)}choose of {known}"
        )
    opened = open_source(source, arrays=detector.channels != RGB)
    if opened.video is not None and detector.channels != RGB:
        raise UserError(f"source= is a video, whose pictures are RGB, and the model takes {detector.channels} channels")
    if annotations and opened.video is not None:
        raise UserError("annotations= lists images, but source= is a video: leave annotations= out")
    listed = read_coco_file(Path(annotations), Path(annotations).parent, needed=("images",)) if annotations else None
    if detector.pixel_range is None and (values := _range_of(opened, detector)):
        log.warning(
            "values from %g to %g are read as those of 16 bits, as the model was trained without data.pixel_range",
            *values,
        )
    image_ids = image_ids_of(listed, opened.files[:max_frames]) if listed else None
    opened = replace(opened, reading=detector.reading(large=tile is not None), sizes=_sizes(listed, image_ids or {}))
    setting = Setting(
        folder=Path(output),
        class_names=detector.class_names,
        category_ids=category_ids_of(detector, listed.classes if listed and listed.num_classes else None),
        image_ids=image_ids,
        frames_per_second=None if opened.video is None else opened.frames_per_second,
    )
    writers = open_writers(names_in(formats), setting)
    began, clock = time.perf_counter(), _ModelClock(detector)
    images, objects, skipped = 0, 0, []
    try:
        for batch in _batches(opened, batch_size if tile is None else 1, max_frames):
            readable = [(frame.name, frame.image) for frame in batch if frame.image is not None]
            skipped += [f"{frame.name}: {frame.problem}" for frame in batch if frame.image is None]
            found = detector.predict([image for _, image in readable], threshold, max_detections, tile, overlap)
            for (name, image), prediction in zip(readable, found, strict=True):
                chosen = prediction.of_classes(wanted) if wanted else prediction
                images, objects = images + 1, objects + len(chosen)
                for writer in writers:
                    writer.add(name, image, chosen)
    except KeyboardInterrupt:  # the usual way to stop a camera
        log.info("stopped by the user; the detections so far are written")
    finally:
        clock.stop()
        outputs = _close(writers)
    return Summary(images, objects, tuple(skipped), outputs, time.perf_counter() - began, clock.seconds)


def _range_of(opened: Source, detector: Detector) -> PixelRange | None:
    return measured_range((path for path, _ in opened.files[:_LOOKED_AT]), detector.channels)


class _ModelClock:
    """Measures the time that a detector spends in its model."""

    def __init__(self, detector: Detector) -> None:
        self.seconds = 0.0
        self._began = 0.0
        self._device = detector.device
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


def _sizes(listed: AnnotationTable | None, image_ids: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Annotated (height, width) of each image."""
    if listed is None:
        return {}
    index = {int(image_id): i for i, image_id in enumerate(listed.image_ids)}
    return {name: listed.size(index[image_id]) for name, image_id in image_ids.items()}
