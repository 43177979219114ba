"""A small synthetic data set of plain shapes, drawn at first use: training with nothing to download.

An image has a textured background and 1 to 5 filled shapes of random colour, size and tilt, which may cover each
other in part. Shapes are drawn at four times the resolution; a box is tight around the visible part of its shape, to a
quarter of a pixel.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.data.images.decode import ImageArray, as_bytes
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError

logger = logging.getLogger(__name__)

SHAPE_NAMES = ("circle", "square", "triangle")
SHAPES_LAYOUT = {split: {"images": split, "annotations": f"annotations/{split}.json"} for split in ("train", "val")}

_RECORD = "drawn_with.json"
_FINE = 4
_MOST_OBJECTS = 5
_SMALLEST_SHARE, _LARGEST_SHARE = 0.1, 0.5  # diameter of a shape, of the image's side
_MOST_TILT = np.pi / 9
_LEAST_VISIBLE = 0.6
_LEAST_CONTRAST = 80.0
_PLACEMENT_TRIES = 20
_JPEG_QUALITY = 95

Mask = NDArray[np.uint8]


class ShapesDataModule(CocoDataModule):
    """The synthetic shapes, drawn at ``root`` unless they are there already.

    Args:
        num_train: images to train on.
        num_val: images to evaluate on.
        drawn_size: side of the drawn images in pixels.
        drawing_seed: of the drawing.
        **arguments: those of `CocoDataModule`, but for ``train`` and ``val``.

    Raises:
        UserError: as `CocoDataModule` does.
    """

    def __init__(
        self, num_train: int = 1000, num_val: int = 200, drawn_size: int = 128, drawing_seed: int = 0, **arguments: Any
    ) -> None:
        super().__init__(train=SHAPES_LAYOUT["train"], val=SHAPES_LAYOUT["val"], **arguments)
        self.drawing = {"num_train": num_train, "num_val": num_val, "image_size": drawn_size, "seed": drawing_seed}

    def prepare_data(self) -> None:
        """Draw the set, unless it exists.

        Raises:
            UserError: if something else lies in its place.
        """
        draw_shapes_dataset(self.root, **self.drawing)
        super().prepare_data()


def draw_shapes_dataset(
    folder: Path, num_train: int = 1000, num_val: int = 200, image_size: int = 128, seed: int = 0
) -> None:
    """Draw the set in COCO's format: ``train/``, ``val/`` and ``annotations/{train,val}.json``.

    Equal arguments give equal sets. The folder appears complete or not at all, so that several processes may draw at
    the same time; where it is there already, nothing happens.

    Args:
        folder: where to.
        num_train: images to train on, at least 1.
        num_val: images to evaluate on, at least 1.
        image_size: side of the images in pixels, at least 32.
        seed: whole number from 0.

    Raises:
        UserError: if the folder holds something else, cannot be written, or an argument is out of range.
    """
    folder = Path(folder)
    drawing = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    for name, least in (("num_train", 1), ("num_val", 1), ("image_size", 32), ("seed", 0)):
        if drawing[name] < least:
            raise UserError(f"the shapes' {name} is {drawing[name]}: give a whole number, at least {least}")
    if _already_drawn(folder, drawing):
        return
    logger.info("drawing %d images of shapes at '%s'", num_train + num_val, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
            complete = Path(unfinished) / folder.name
            for split_number, (split, count) in enumerate((("train", num_train), ("val", num_val))):
                _draw_split(complete, split, count, image_size, (seed, split_number))
            (complete / _RECORD).write_text(json.dumps(drawing), encoding="utf-8")
            try:
                complete.rename(folder)
            except OSError:
                # Another process was faster, and its set is the same; anything else is an error.
                if not _already_drawn(folder, drawing):
                    raise
    except OSError as error:
        raise UserError(f"the shapes cannot be drawn at '{folder}': {error.strerror}; choose another root") from error


def draw_shapes_image(size: int, seed: tuple[int, ...]) -> tuple[ImageArray, list[tuple[int, list[float]]]]:
    """One image and its objects.

    Args:
        size: side in pixels.
        seed: whole numbers from 0; equal seeds give equal images.

    Returns:
        uint8 ``[size, size, 3]``, and for each object its class and box, xywh in pixels.
    """
    generator = np.random.default_rng(list(seed))
    image = _background(generator, size)
    visible: list[Mask] = []
    areas: list[int] = []
    labels: list[int] = []
    for _ in range(generator.integers(1, _MOST_OBJECTS + 1)):
        for _ in range(_PLACEMENT_TRIES):
            label = int(generator.integers(len(SHAPE_NAMES)))
            mask = _random_mask(generator, SHAPE_NAMES[label], size)
            remaining = [cv2.bitwise_and(below, cv2.bitwise_not(mask)) for below in visible]
            counts = [cv2.countNonZero(below) for below in remaining]
            if all(count >= _LEAST_VISIBLE * area for count, area in zip(counts, areas, strict=True)):
                break
        else:
            continue
        visible = [*map(as_bytes, remaining), mask]
        areas.append(cv2.countNonZero(mask))
        labels.append(label)
        image = _painted(generator, image, mask)
    noisy = image + generator.uniform(0, 6) * generator.standard_normal(image.shape, dtype=np.float32)
    boxes = [[side / _FINE for side in cv2.boundingRect(mask)] for mask in visible]
    return np.clip(noisy, 0, 255).astype(np.uint8), list(zip(labels, boxes, strict=True))


def _already_drawn(folder: Path, drawing: dict[str, int]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = folder / _RECORD
    if not record.is_file() or json.loads(record.read_text(encoding="utf-8")) != drawing:
        raise UserError(
            f"'{folder}' exists but does not hold the shapes of these settings ({drawing}): remove it, or choose "
            "another data.root"
        )
    return True


def _draw_split(folder: Path, split: str, count: int, size: int, seed: tuple[int, int]) -> None:
    image_folder = folder / SHAPES_LAYOUT[split]["images"]
    annotation_file = folder / SHAPES_LAYOUT[split]["annotations"]
    image_folder.mkdir(parents=True)
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        image, objects = draw_shapes_image(size, (*seed, number))
        name = f"{number:06d}.jpg"
        _, encoded = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        (image_folder / name).write_bytes(encoded.tobytes())
        images.append({"id": number, "file_name": name, "height": size, "width": size})
        for label, box in objects:
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": box}
            annotations.append({**annotation, "area": box[2] * box[3], "iscrowd": 0})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(SHAPE_NAMES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    annotation_file.write_text(json.dumps(content), encoding="utf-8")


def _background(generator: np.random.Generator, size: int) -> NDArray[np.float32]:
    """A colour with clouds in two octaves ``[size, size, 3]``, and stripes in half of the images."""
    canvas = np.tile(generator.uniform(40, 215, 3).astype(np.float32), (size, size, 1))
    for cells, strength in ((3, 40), (16, 25)):
        clouds = generator.uniform(-strength, strength, (cells, cells, 3)).astype(np.float32)
        canvas += cv2.resize(clouds, (size, size), interpolation=cv2.INTER_CUBIC)
    if generator.random() < 0.5:
        angle, period = generator.uniform(0, np.pi), generator.uniform(4, 24)
        rows, columns = np.mgrid[:size, :size]
        wave = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / period)
        canvas += (wave[..., None] * generator.uniform(-20, 20, 3)).astype(np.float32)
    return np.clip(canvas, 0, 255)


def _random_mask(generator: np.random.Generator, name: str, size: int) -> Mask:
    """A shape at a random place within the image, 255 inside, ``[size * 4, size * 4]``."""
    side = size * _FINE
    radius = generator.uniform(_SMALLEST_SHARE, _LARGEST_SHARE) * side / 2
    tilt = generator.uniform(-_MOST_TILT, _MOST_TILT)
    mask = np.zeros((side, side), dtype=np.uint8)
    # All shapes reach up to their radius and no further, so that this keeps them within the image.
    x, y = generator.uniform(radius + 1, side - radius - 1, 2)
    if name == "circle":
        cv2.circle(mask, (round(x), round(y)), int(radius), 255, cv2.FILLED)
        return mask
    corners = {"square": 4, "triangle": 3}[name]
    upright = np.pi / 4 if name == "square" else -np.pi / 2
    angles = upright + tilt + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 255)
    return mask


def _painted(generator: np.random.Generator, image: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    """The image with a shape of random colour on it, different enough from what it covers to be seen."""
    size = image.shape[0]
    coverage = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    covered = np.array(cv2.mean(image, coverage)[:3])
    colour = generator.uniform(0, 255, 3)
    while np.linalg.norm(colour - covered) < _LEAST_CONTRAST:
        colour = generator.uniform(0, 255, 3)
    share = (coverage / np.float32(255))[..., None]
    painted: NDArray[np.float32] = image + share * (colour.astype(np.float32) - image)
    return painted
