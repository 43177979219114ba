"""Detectors whose model is a file of another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.detector import Detector, ImageLike, Prediction, pixels_of
from rtdetrv2_train.inference.export_card import ExportCard, exported_file
from rtdetrv2_train.inference.runtimes import SUFFIXES, Session, open_model
from rtdetrv2_train.model.output import ModelOutput


class ExportedModel(nn.Module):
    """A file in its runtime, in place of a model.

    Args:
        session: of the file.
        card: of the file.
    """

    def __init__(self, session: Session, card: ExportCard) -> None:
        super().__init__()
        self.session = session
        self.card = card


class RawModel(ExportedModel):
    """A raw graph."""

    def forward(self, images_BCHW: Tensor) -> ModelOutput:
        """Logits and boxes of uint8 images ``[B, C, H, W]``; see :class:`ModelOutput`."""
        images = np.ascontiguousarray(images_BCHW.numpy())
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / np.float32(255)
        logits, boxes = in_batches(self.session, images, self.card.batch)
        return ModelOutput(torch.from_numpy(logits), torch.from_numpy(boxes))


def in_batches(session: Session, images: NDArray[np.generic], size: int | None) -> list[NDArray[np.generic]]:
    """Run any number of images through a graph of a fixed batch; the last one is filled up.

    Args:
        session: of the graph.
        images: its input.
        size: of its batch; None: any.
    """
    if size is None or len(images) == size:
        return session(images)
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)]) if len(part) < size else part
        parts.append([output[: len(part)] for output in session(filled)])
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


class EndToEndModel(ExportedModel):
    """An end-to-end graph."""

    def forward(self, images_BHWC: ImageArray, threshold: float) -> list[NDArray[np.generic]]:
        """Labels, scores, boxes and counts of images; see `DetectionGraph`."""
        return self.session(images_BHWC, np.array([threshold], np.float32))


@dataclass(frozen=True, eq=False)
class EndToEndDetector(Detector):
    """A detector whose graph resizes images and picks detections itself, one image at a time."""

    def _predict(self, images: Sequence[ImageLike], threshold: float, max_detections: int) -> list[Prediction]:
        model = cast(EndToEndModel, self.model)
        predictions = []
        for image in images:
            pixels = pixels_of(image, self.reading())[None].repeat(model.card.batch or 1, 0)
            labels, scores, boxes, count = model(pixels, threshold)
            kept = slice(0, min(int(count[0]), max_detections))
            names = [self.class_names[label] for label in labels[0, kept]]
            predictions.append(Prediction(labels[0, kept].astype(np.int64), names, scores[0, kept], boxes[0, kept]))
        return predictions


def load_exported(source: str | Path) -> Detector | None:
    """A detector from an exported model, ready to predict.

    Args:
        source: its file, or the folder that it was exported to.

    Returns:
        None where ``source`` is no such thing.

    Raises:
        UserError: if its card or its runtime is missing, or the runtime cannot open it.
    """
    if (path := exported_file(source, SUFFIXES)) is None:
        return None
    card = ExportCard.read(path)
    return detector_of(open_model(path, card), card)


def detector_of(session: Session, card: ExportCard) -> Detector:
    """The detector around an opened file."""
    raw = card.graph == "raw"
    return (Detector if raw else EndToEndDetector)(
        (RawModel if raw else EndToEndModel)(session, card),
        card.class_names,
        card.image_size,
        letterbox=card.letterbox,
        category_ids=card.category_ids,
        pixel_range=card.pixel_range,
        threshold=card.threshold,
        channels=card.channels,
    )


def refuse_settings(source: str | Path, **settings: object) -> None:
    """Say that what a model computes is settled when it is exported.

    Raises:
        UserError: if a setting is given.
    """
    for name, value in settings.items():
        if value:
            raise UserError(f"{name} has no effect on the exported model '{source}': export it again with that")
