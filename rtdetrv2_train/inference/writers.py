"""Writers of predictions: pictures, a video, COCO's JSON, YOLO's text files, CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from rtdetrv2_train.data.images.decode import ImageArray
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.viz.boxes import draw_detections

_SAVED_AS_THEY_CAME = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_QUALITY = 92


class Found(Protocol):
    """The n objects of one image: class indices, names, scores, and boxes xyxy in pixels."""

    @property
    def labels(self) -> Any:
        """``[n]``."""

    @property
    def names(self) -> Any:
        """``[n]``."""

    @property
    def scores(self) -> Any:
        """``[n]``, in [0, 1]."""

    @property
    def boxes(self) -> Any:
        """``[n, 4]``."""


@dataclass(frozen=True)
class Setting:
    """What writers need to know.

    Attributes:
        folder: where everything goes.
        class_names: in the order of the class indices.
        category_ids: the annotation file's id of each class index; None for a class that it lacks.
        image_ids: the annotation file's id of each image's name; None to number images from 1.
        frames_per_second: of the video that the images come from; None for images.
    """

    folder: Path
    class_names: Sequence[str]
    category_ids: Sequence[int | None]
    image_ids: Mapping[str, int] | None = None
    frames_per_second: float | None = None


class Writer(Protocol):
    """Takes predictions image by image."""

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Take the objects of one image."""

    def close(self) -> Path:
        """Finish; returns the path that was written."""


class Pictures:
    """Each image with its objects drawn on it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.folder = setting.folder / "images"

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Draw and save, under the image's name."""
        path = self.folder / name
        if path.suffix.lower() not in _SAVED_AS_THEY_CAME:
            path = path.with_name(f"{path.name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = draw_detections(image, found.boxes, found.labels, found.scores, self.setting.class_names)
        drawn.save(path, quality=_QUALITY)

    def close(self) -> Path:
        """The folder of pictures."""
        return self.folder


class Video:
    """A video with objects drawn on it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.path = setting.folder / "video.mp4"
        self._writer: cv2.VideoWriter | None = None

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Draw and append."""
        if self._writer is None:
            size = (image.shape[1], image.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self.path), code, self.setting.frames_per_second or 25.0, size)
        drawn = draw_detections(image, found.boxes, found.labels, found.scores, self.setting.class_names)
        self._writer.write(cv2.cvtColor(np.asarray(drawn), cv2.COLOR_RGB2BGR))

    def close(self) -> Path:
        """The video."""
        if self._writer is not None:
            self._writer.release()
        return self.path


class CocoJson:
    """A list of results in COCO's format, with every digit, so that an evaluation of the file repeats the metrics."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.path = setting.folder / "predictions.json"
        self._results: list[dict[str, Any]] = []
        self._count = 0

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Take the objects of one image."""
        self._count += 1
        image_id = self._count if self.setting.image_ids is None else self.setting.image_ids[name]
        corners = np.asarray(found.boxes, dtype=np.float64)
        places = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        for label, score, place in zip(found.labels, found.scores, places, strict=True):
            category_id = self.setting.category_ids[label]
            if category_id is None:
                continue
            self._results.append(
                {
                    "image_id": image_id,
                    "file_name": name,
                    "category_id": category_id,
                    "bbox": place,
                    "score": float(score),
                }
            )

    def close(self) -> Path:
        """Write the file."""
        self.path.write_text(json.dumps(self._results), encoding="utf-8")
        return self.path


class YoloText:
    """A text file for each image: class index, centre and size as shares of the image, score."""

    def __init__(self, setting: Setting) -> None:
        self.folder = setting.folder / "labels"
        self._written: set[Path] = set()

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Write the file of one image, empty where nothing was found."""
        path = (self.folder / name).with_suffix(".txt")
        if path in self._written:  # a.jpg and a.png
            path = self.folder / f"{name}.txt"
        self._written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = image.shape[:2]
        corners = np.asarray(found.boxes, dtype=np.float64) / [width, height, width, height]
        lines = []
        for label, score, (left, top, right, bottom) in zip(found.labels, found.scores, corners, strict=True):
            place = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            lines.append(" ".join([str(int(label)), *(f"{side:.6f}" for side in place), f"{score:.4f}"]) + "\n")
        path.write_text("".join(lines), encoding="utf-8")

    def close(self) -> Path:
        """The folder of text files."""
        return self.folder


class Table:
    """A line of CSV for each object."""

    def __init__(self, setting: Setting) -> None:
        self.path = setting.folder / "predictions.csv"
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._lines = csv.writer(self._file)
        self._lines.writerow(["image", "class", "score", "left", "top", "right", "bottom"])

    def add(self, name: str, image: ImageArray, found: Found) -> None:
        """Write the lines of one image."""
        for class_name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
            self._lines.writerow([name, class_name, f"{score:.4f}", *(f"{side:.1f}" for side in box)])

    def close(self) -> Path:
        """Finish the file."""
        self._file.close()
        return self.path


WRITERS: dict[str, Callable[[Setting], Writer]] = {
    "images": lambda setting: Pictures(setting) if setting.frames_per_second is None else Video(setting),
    "coco": CocoJson,
    "yolo": YoloText,
    "csv": Table,
}
"""By the name of the format; ``images`` of a video are a video."""


def open_writers(formats: Sequence[str], setting: Setting) -> list[Writer]:
    """The writers of the named formats.

    Raises:
        UserError: if there is no such format, or none at all.
    """
    if not formats:
        raise UserError(f"formats is empty, so nothing would be written: use some of {', '.join(WRITERS)}")
    for name in formats:
        if name not in WRITERS:
            raise UserError(f"there is no format '{name}': {nearest(name, WRITERS)}use some of {', '.join(WRITERS)}")
    setting.folder.mkdir(parents=True, exist_ok=True)
    return [WRITERS[name](setting) for name in dict.fromkeys(formats)]
