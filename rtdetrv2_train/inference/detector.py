"""Predicting on images: files, Pillow's images or arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from rtdetrv2_train.data.images.decode import PixelRange, Reading
from rtdetrv2_train.data.images.reading import RGB
from rtdetrv2_train.data.images.resize import evaluation_input
from rtdetrv2_train.errors import UserError, check_number
from rtdetrv2_train.inference.pixels import ImageLike, pixels_of
from rtdetrv2_train.inference.tiling import cut_by_tile, tiles_of, without_repeats
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.model.reparameterisation import fuse

_BATCH_SIZE = 8
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Prediction:
    """The n objects found in one image, best first.

    Attributes:
        labels: int64 ``[n]``, class indices.
        names: their names.
        scores: float32 ``[n]``, in [0, 1].
        boxes: float32 ``[n, 4]``, xyxy in pixels of the image as it is seen, turned where its EXIF says so; they may
            reach a little beyond its border.
    """

    labels: NDArray[np.int64]
    names: list[str]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.labels)

    def of_classes(self, names: str | Sequence[str]) -> Prediction:
        """Only the objects of some classes."""
        names = names_in(names)
        kept = np.array([name in names for name in self.names], dtype=bool)
        chosen = [name for name in self.names if name in names]
        return Prediction(self.labels[kept], chosen, self.scores[kept], self.boxes[kept])


@dataclass(frozen=True, eq=False)
class Detector:
    """A model with what predicting needs beside it; :func:`load_detector` makes one.

    Attributes:
        model: on the device to compute on; of an exported file, what stands for it.
        class_names: in the order of the class indices.
        image_size: (height, width) of the model's input in pixels; images are resized to it.
        letterbox: whether they keep their aspect ratio, with a black margin at the right or below.
        category_ids: the annotation file's id of each class index; empty where that is not known.
        half: whether to compute in half precision (float16 on a GPU, bfloat16 on the CPU).
        pixel_range: values of images of more than 8 bits that become black and white (see `Reading`).
        threshold: score that objects have to exceed: the best in the report of the model's training, or else 0.5.
        channels: of its images; 3: images of any kind become RGB.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    letterbox: bool = False
    category_ids: tuple[int, ...] = ()
    half: bool = False
    pixel_range: PixelRange | None = None
    threshold: float = DEFAULT_THRESHOLD
    channels: int = RGB

    def fused(self) -> Detector:
        """The same detector with all norms folded into the convolutions: the same objects in less time."""
        return replace(self, model=fuse(self.model)) if isinstance(self.model, RTDETRv2) else self

    @property
    def pytorch_model(self) -> RTDETRv2:
        """The model, where PyTorch computes it.

        Raises:
            UserError: if it is a file of another runtime.
        """
        if not isinstance(self.model, RTDETRv2):
            raise UserError("an exported model is no PyTorch model: give the run or the checkpoint that it was made of")
        return self.model

    @property
    def device(self) -> torch.device:
        """What the model computes on."""
        return next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))

    @overload
    def predict(
        self,
        images: ImageLike,
        threshold: float | None = ...,
        max_detections: int = ...,
        tile: int | None = ...,
        overlap: float = ...,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        threshold: float | None = ...,
        max_detections: int = ...,
        tile: int | None = ...,
        overlap: float = ...,
    ) -> list[Prediction]: ...

    def predict(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        threshold: float | None = None,
        max_detections: int = 300,
        tile: int | None = None,
        overlap: float = 0.2,
    ) -> Prediction | list[Prediction]:
        """Find objects.

        Args:
            images: a path, an image of Pillow's, or a uint8 array ``[H, W]``, ``[H, W, 3]`` (RGB) or ``[H, W, 4]``
                (RGBA); or an iterable of these. A model of other channels takes ``[H, W, C]``, and files and images of
                as many bands. Files and images of Pillow's are turned as their EXIF says.
            threshold: objects with a score above it are given; None for the detector's own.
            max_detections: at most so many objects, the best; of each tile, where there are tiles.
            tile: for small objects in large images: the side in pixels of the tiles to look at one by one, besides the
                whole image; what several of them see counts once.
            overlap: least share of a tile that its neighbour shows too.

        Returns:
            a prediction; a list of predictions for a list of images.

        Raises:
            UserError: if an image cannot be read, or a number is out of its range.
        """
        if not isinstance(images, str | Path | Image.Image | np.ndarray | Sequence) and isinstance(images, Iterable):
            images = list(images)
        threshold = self.threshold if threshold is None else threshold
        check_number("threshold", threshold, 0, 1, whole=False)
        check_number("max_detections", max_detections, 1)
        if not isinstance(images, list | tuple):
            return self.predict([images], threshold, max_detections, tile, overlap)[0]
        if tile is not None:
            return [self._predict_tiles(image, threshold, max_detections, tile, overlap) for image in images]
        return [
            prediction
            for start in range(0, len(images), _BATCH_SIZE)
            for prediction in self._predict(images[start : start + _BATCH_SIZE], threshold, max_detections)
        ]

    def reading(self, large: bool = False) -> Reading:
        """How the files of images to predict on are read; ``large``: whether also those beyond Pillow's limit."""
        return Reading("apply", self.pixel_range, large, self.channels)

    def _predict_tiles(
        self, source: ImageLike, threshold: float, max_detections: int, side: int, overlap: float
    ) -> Prediction:
        image = pixels_of(source, self.reading(large=True))
        height, width = image.shape[:2]
        tiles = tiles_of(height, width, side, overlap)
        if len(tiles) > 1:
            tiles.append((0, 0, width, height))
        views = [image[top:bottom, left:right] for left, top, right, bottom in tiles]
        parts = self.predict(views, threshold, max_detections)
        boxes = [
            part.boxes + np.array([*tile[:2], *tile[:2]], np.float32) for part, tile in zip(parts, tiles, strict=True)
        ]
        cut = [cut_by_tile(own, tile, height, width) for own, tile in zip(boxes, tiles, strict=True)]
        labels, scores = np.concatenate([p.labels for p in parts]), np.concatenate([p.scores for p in parts])
        origin = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        kept = without_repeats(np.concatenate(boxes), labels, scores, np.concatenate(cut), origin)
        names = [self.class_names[label] for label in labels[kept].tolist()]
        return Prediction(labels[kept], names, scores[kept], np.concatenate(boxes)[kept])

    def _predict(self, images: Sequence[ImageLike], threshold: float, max_detections: int) -> list[Prediction]:
        arrays = [pixels_of(image, self.reading()) for image in images]
        device = self.device
        inputs = [evaluation_input(array, self.image_size, self.letterbox) for array in arrays]
        batch = torch.from_numpy(np.stack([pixels for pixels, _ in inputs])).to(device).permute(0, 3, 1, 2)
        sizes = torch.tensor([span for _, span in inputs], dtype=torch.float32, device=device)

        was_training = self.model.training
        self.model.eval()
        try:
            half = torch.float16 if device.type == "cuda" else torch.bfloat16
            with torch.inference_mode(), torch.autocast(device.type, half, enabled=self.half):
                output = self.model(batch)
                found = detections_from(output.logits, output.boxes, sizes, max_detections)
        finally:
            if was_training:
                self.model.train()

        predictions = []
        for labels, scores, boxes in zip(found.labels.cpu(), found.scores.cpu(), found.boxes.cpu(), strict=True):
            kept = scores > threshold
            predictions.append(
                Prediction(
                    labels=labels[kept].numpy(),
                    names=[self.class_names[label] for label in labels[kept].tolist()],
                    scores=scores[kept].numpy(),
                    boxes=boxes[kept].float().numpy(),
                )
            )
        return predictions


@overload
def predict(
    model: RTDETRv2,
    images: ImageLike,
    class_names: Sequence[str] | None = ...,
    image_size: tuple[int, int] | None = ...,
    threshold: float = ...,
) -> Prediction: ...


@overload
def predict(
    model: RTDETRv2,
    images: list[Any] | tuple[Any, ...],
    class_names: Sequence[str] | None = ...,
    image_size: tuple[int, int] | None = ...,
    threshold: float = ...,
) -> list[Prediction]: ...


def predict(
    model: RTDETRv2,
    images: ImageLike | list[Any] | tuple[Any, ...],
    class_names: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    threshold: float = DEFAULT_THRESHOLD,
) -> Prediction | list[Prediction]:
    """Find objects with a model that was built or trained here.

    Args:
        model: in any mode, which it keeps.
        images: see :meth:`Detector.predict`.
        class_names: see :func:`make_detector`.
        image_size: see :func:`make_detector`.
        threshold: objects with a score above it are given.

    Returns:
        a prediction; a list of predictions for a list of images.

    Raises:
        UserError: see :meth:`Detector.predict`.
    """
    return make_detector(model, class_names, image_size).predict(images, threshold)


def make_detector(
    model: RTDETRv2, class_names: str | Sequence[str] | None = None, image_size: tuple[int, int] | None = None
) -> Detector:
    """A detector around a model.

    Args:
        model: the model, not copied.
        class_names: in the order of the class indices; None for ``LABEL_0`` and so on, as transformers calls classes
            without a name.
        image_size: (height, width) that images are resized to; None for the size that the model was made for.

    Raises:
        UserError: if there is not one name for each class.
    """
    num_classes = model.architecture.num_classes
    names = names_in(class_names) if class_names else tuple(f"LABEL_{index}" for index in range(num_classes))
    if len(names) != num_classes:
        raise UserError(f"{len(names)} class names were given for a model of {num_classes} classes")
    architecture = model.architecture
    return Detector(model, names, image_size or architecture.image_size, channels=architecture.in_channels)


def names_in(names: str | int | Iterable[str | int]) -> tuple[str, ...]:
    """Names as strings; a single one counts as a list of one."""
    return (str(names),) if isinstance(names, str | int) else tuple(map(str, names))
