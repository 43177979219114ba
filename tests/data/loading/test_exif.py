"""Boxes lie on their objects whatever orientation the EXIF of an image gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.images.cache import ImageCache
from rtdetrv2_train.data.images.decode import ImageArray, turned
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.dataset import DetectionDataset, Sample
from rtdetrv2_train.data.loading.samplers import SampleRequest

ORIENTATIONS = range(1, 9)
TURNED_BACK = {6: 8, 8: 6}
RED = np.array([230, 30, 30])
ALWAYS = AugmentationSchedule({}, 2, 2)


def upright_picture(height: int, width: int) -> tuple[ImageArray, list[int]]:
    """Grey with one red rectangle in a corner, and its place: left, top, width, height."""
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    left, top, right, bottom = width // 8, height // 2, width // 2, height * 15 // 16
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), RED.tolist(), cv2.FILLED)
    return picture, [left, top, right - left, bottom - top]


def write_set(
    folder: Path, sizes: str, name: str = "{}.jpg", size: tuple[int, int] = (96, 64), orientations: Sequence[int] = ()
) -> tuple[Path, Path]:
    """The picture in all orientations, its box as it is seen; ``sizes``: upright, stored or none."""
    picture, box = upright_picture(*size)
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "red"}]}
    for orientation in orientations or ORIENTATIONS:
        stored = turned(picture, TURNED_BACK.get(orientation, orientation))
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(folder / name.format(orientation), exif=exif, quality=95)
        entry: dict[str, Any] = {"id": orientation, "file_name": name.format(orientation)}
        if sizes != "none":
            height, width = (picture if sizes == "upright" else stored).shape[:2]
            entry |= {"height": height, "width": width}
        content["images"].append(entry)
        content["annotations"].append({"id": orientation, "image_id": orientation, "category_id": 1, "bbox": box})
    (folder / "set.json").write_text(json.dumps(content))
    return folder / "set.json", folder


def assert_on_object(sample: Sample) -> None:
    """The one box is filled by the object, and a margin around it is not."""
    height, width = sample.image.shape[:2]
    left, top, right, bottom = (sample.boxes[0] * [width, height, width, height]).round().astype(int)
    red = (np.abs(sample.image.astype(int) - RED) < 60).all(axis=2)
    assert red[top + 2 : bottom - 2, left + 2 : right - 2].mean() > 0.98
    red[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = False
    assert not red.any()


def evaluation_samples(annotations: AnnotationTable, letterbox: bool = False) -> list[Sample]:
    dataset = DetectionDataset(annotations, letterbox=letterbox)
    return [dataset[SampleRequest(index, 0, 64, 64)] for index in range(len(annotations))]


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("name", ["{}.jpg", "{}.png", "{}.webp", "{}.tif"])
@pytest.mark.parametrize("sizes", ["upright", "stored", "none"])
def test_boxes_drawn_on_upright_pictures_fit_where_exif_is_applied(
    tmp_path: Path, sizes: str, name: str, letterbox: bool
) -> None:
    annotations = load_annotations(*write_set(tmp_path, sizes, name), "apply")
    assert annotations.heights.tolist() == [96] * 8
    for sample in evaluation_samples(annotations, letterbox):
        assert_on_object(sample)
        assert sample.original_size == pytest.approx((96, 96) if letterbox else (96, 64), abs=1)


@pytest.mark.parametrize("name", ["{}.jpg", "{}.png", "{}.webp"])
def test_images_are_turned_where_the_annotated_size_is_the_upright_one(tmp_path: Path, name: str) -> None:
    annotations = load_annotations(*write_set(tmp_path, "upright", name, orientations=[1, 5, 6, 7, 8]))
    for sample in evaluation_samples(annotations):
        assert_on_object(sample)


@pytest.mark.parametrize(("sizes", "exif"), [("stored", "auto"), ("none", "auto"), ("upright", "ignore")])
def test_images_are_read_as_stored_where_nothing_asks_for_turning(tmp_path: Path, sizes: str, exif: Any) -> None:
    annotations = load_annotations(*write_set(tmp_path, sizes), exif)
    assert [sample.original_size for sample in evaluation_samples(annotations)] == [(96, 64)] * 4 + [(64, 96)] * 4


@pytest.mark.parametrize("size", [(512, 384), (509, 371)])
@pytest.mark.parametrize("cached", [None, "ram", "disk"])
def test_training_follows_the_turned_pixels_at_every_scale(tmp_path: Path, size: tuple[int, int], cached: str) -> None:
    annotations = load_annotations(*write_set(tmp_path, "upright", size=size), "apply")
    moves = {"zoom_out": ZoomOut(), "iou_crop": IoUCrop(sampler_options=[0.9, 1.0]), "flip": HorizontalFlip()}
    place = tmp_path / "cache" if cached == "disk" else None
    cache = ImageCache(annotations, (96, 64), place) if cached else None
    dataset = DetectionDataset(annotations, TrainingPipeline(moves), ALWAYS, cache=cache)
    for epoch in (0, 1):  # from the file, then from the cache
        for index in range(8):
            assert_on_object(dataset[SampleRequest(index, epoch, 96, 64)])


def test_a_broken_block_of_exif_harms_nothing(tmp_path: Path) -> None:
    annotation_file, folder = write_set(tmp_path, "upright", orientations=[1])
    content = (folder / "1.jpg").read_bytes()
    start = content.index(b"Exif\0\0") + 6
    (folder / "1.jpg").write_bytes(content[:start] + b"XX" + content[start + 2 :])
    (sample,) = evaluation_samples(load_annotations(annotation_file, folder))
    assert_on_object(sample)
