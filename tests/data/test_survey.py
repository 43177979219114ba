from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.images.decode import Reading, read_image
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.inspection.conventions import other_convention
from rtdetrv2_train.data.inspection.object_sizes import size_advice
from rtdetrv2_train.data.survey import measured_range, sample_of_images, warn_of_images
from rtdetrv2_train.errors import UserError

BOXES = [[4, 6, 20, 10], [40, 30, 20, 15], [1, 1, 62, 46], [0, 25, 10, 20], [50, 0, 10, 40]]


def with_boxes(make_set: Any, boxes: list[list[float]], **changes: Any) -> AnnotationTable:
    annotations = [{"id": n, "image_id": 10, "category_id": 3, "bbox": box, **changes} for n, box in enumerate(boxes)]
    return load_annotations(*make_set(1, annotations=annotations))


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        (BOXES, ""),
        ([[0, 0, 64, 48]], ""),
        ([[30, 20, 40, 10], *BOXES * 4], ""),
        ([[left, top, left + width, top + height] for left, top, width, height in BOXES], "two corners"),
        ([[left + w / 2, top + h / 2, w, h] for left, top, w, h in BOXES], "centre and size"),
        ([[left / 64, top / 48, w / 64, h / 48] for left, top, w, h in BOXES], "within 0 to 1"),
        ([], ""),
    ],
    ids=["as it should be", "whole image", "one beyond the border", "corners", "centre", "shares", "none"],
)
def test_the_convention_of_boxes_is_recognised(make_set: Any, boxes: list[list[float]], expected: str) -> None:
    convention = other_convention(with_boxes(make_set, boxes))
    assert expected in convention
    assert bool(convention) == bool(expected)


def test_crowd_regions_do_not_count_for_the_convention(make_set: Any) -> None:
    assert other_convention(with_boxes(make_set, [[0.1, 0.1, 0.2, 0.2]], iscrowd=1)) == ""


@pytest.mark.parametrize(
    ("image", "boxes", "advice"),
    [
        ((480, 640), [[8, 8, 40, 40]], ""),
        ((480, 640), [[8, 8, 16, 16]], "100% of the boxes have fewer than 8 x 8 pixels at 160 x 192: "
            "with model.image_size=[320,384] 0% would have"),
        ((480, 640), [[8, 8, 16, 16], [8, 8, 9, 9], [8, 8, 99, 99], [8, 8, 99, 99]], "50% of the boxes have fewer than "
            "8 x 8 pixels at 160 x 192: with model.image_size=[480,576] 0% would have"),
        ((480, 640), [[8, 8, 16, 16], *[[8, 8, 99, 99]] * 4], ""),
        ((48, 64), [[8, 8, 2, 2]], "100% of the boxes have fewer than 8 x 8 pixels at 160 x 192, "
            "which is hard to learn; the images have no more pixels"),
        ((48, 64), [], ""),
    ],
    ids=["large", "small", "very small", "few small", "small images", "none"],
)  # fmt: skip
def test_an_input_too_small_for_the_boxes_is_said_with_a_better_one(
    make_set: Any, image: tuple[int, int], boxes: list[list[float]], advice: str
) -> None:
    annotations = [{"id": n, "image_id": 10, "category_id": 3, "bbox": box} for n, box in enumerate(boxes, 1)]
    assert size_advice(load_annotations(*make_set(1, size=image, annotations=annotations)), (160, 192)) == advice


def turned_set(make_set: Any, orientation: int, swapped: bool, size: tuple[int, int]) -> tuple[Path, Path]:
    annotation_file, folder = make_set(2, size)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for path in folder.iterdir():
        Image.open(path).save(path, exif=exif)
    if swapped:
        content = json.loads(annotation_file.read_text())
        for entry in content["images"]:
            entry["height"], entry["width"] = entry["width"], entry["height"]
        annotation_file.write_text(json.dumps(content))
    return annotation_file, folder


@pytest.mark.parametrize(
    ("orientation", "swapped", "size", "exif", "level"),
    [
        (6, True, (48, 64), "auto", "INFO"),
        (6, False, (48, 64), "auto", "WARNING"),
        (6, False, (48, 48), "auto", "WARNING"),
        (3, False, (48, 64), "auto", "WARNING"),
        (1, False, (48, 64), "auto", ""),
        (6, False, (48, 64), "ignore", ""),
        (6, False, (48, 64), "apply", "INFO"),
    ],
)
def test_one_line_tells_what_becomes_of_exif(
    make_set: Any,
    caplog: pytest.LogCaptureFixture,
    orientation: int,
    swapped: bool,
    size: tuple[int, int],
    exif: Any,
    level: str,
) -> None:
    annotations = load_annotations(*turned_set(make_set, orientation, swapped, size), exif)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        warn_of_images(annotations, sample_of_images(annotations))
    assert [record.levelname for record in caplog.records] == [level] * bool(level)
    assert ("EXIF" in caplog.text) == bool(level)
    assert ("data.exif=apply" in caplog.text) == (level == "WARNING")


@pytest.mark.parametrize(("bottom", "hint"), [(60.0, True), (40.0, False), (90.0, False)])
def test_boxes_that_fit_turned_images_only_are_said(
    make_set: Any, caplog: pytest.LogCaptureFixture, bottom: float, hint: bool
) -> None:
    annotation_file, folder = turned_set(make_set, 6, False, (48, 64))
    content = json.loads(annotation_file.read_text())
    content["annotations"] = [{"id": 1, "image_id": 11, "category_id": 3, "bbox": [4, 10, 20, bottom - 10]}]
    annotation_file.write_text(json.dumps(content))
    annotations = load_annotations(annotation_file, folder)
    warn_of_images(annotations, sample_of_images(annotations))
    assert ("boxes reach out of them and would fit the turned ones" in caplog.text) == hint


def test_images_that_cannot_be_read_are_passed_over(make_set: Any) -> None:
    annotation_file, folder = make_set(3)
    (folder / "1.png").write_bytes(b"no image")
    assert list(sample_of_images(load_annotations(annotation_file, folder))) == [0, 2]


@pytest.mark.parametrize(
    ("low", "high", "kind", "measured"),
    [
        (0, 255, np.uint8, False),
        (0, 4095, np.uint16, True),
        (20000, 21500, np.uint16, True),
        (0, 65535, np.uint16, False),
        (0, 255, np.uint16, False),
        (0, 1, np.float32, False),
        (-40, 130, np.float32, True),
        (0, 3000, np.float32, True),
    ],
)
def test_the_range_of_deep_images_is_measured_where_it_is_unusual(
    make_set: Any, low: float, high: float, kind: type, measured: bool
) -> None:
    _, folder = make_set(2)
    for number in range(2):
        values = np.linspace(low, high, 48 * 64).reshape(48, 64).astype(kind)
        Image.fromarray(values if number else values[:, ::-1].copy()).save(folder / f"{number}.png", "TIFF")
    found = measured_range(folder / f"{number}.png" for number in range(2))
    assert (found is not None) == measured
    if found is not None:
        assert found == pytest.approx((low, high), abs=0.005 * (high - low))


@pytest.mark.parametrize(
    ("most", "suffix", "unusual"), [(4095, "png", True), (4095, "tif", True), (65535, "png", False)]
)
def test_the_range_of_colours_of_16_bits_is_measured(tmp_path: Path, most: int, suffix: str, unusual: bool) -> None:
    values = np.linspace(0, most, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint16)
    alpha = np.full((48, 64, 1), 65535, np.uint16)  # does not count
    for name, image in (("colour", values), ("alpha", np.concatenate([values, alpha], axis=2))):
        cv2.imwrite(str(tmp_path / f"{name}.{suffix}"), image)
    found = measured_range(tmp_path / f"{name}.{suffix}" for name in ("colour", "alpha"))
    assert (found is not None) == unusual
    if found is not None:
        assert found == pytest.approx((0, most), abs=0.005 * most)
        pixels = read_image(tmp_path / f"alpha.{suffix}", Reading(pixel_range=found))
        assert (pixels.min(), pixels.max()) == (0, 255)


def test_a_set_of_other_bands_is_refused_at_once_and_animations_are_said(
    make_set: Any, caplog: pytest.LogCaptureFixture
) -> None:
    annotation_file, folder = make_set(2)
    frames = [Image.fromarray(np.full((48, 64, 3), value, np.uint8)) for value in (20, 200)]
    frames[0].save(folder / "0.png", save_all=True, append_images=frames[1:])
    annotations = load_annotations(annotation_file, folder)
    with caplog.at_level(logging.INFO):
        warn_of_images(annotations, sample_of_images(annotations))
    assert "of animations such as '0.png' the first picture is read" in caplog.text
    assert read_image(folder / "0.png")[0, 0].tolist() == [20, 20, 20]
    wanted = replace(annotations, reading=Reading(channels=4))
    with pytest.raises(
        UserError, match=r"its images have 3 bands, such as '0\.png', and data\.channels is 4: set data"
    ):
        warn_of_images(wanted, sample_of_images(wanted))
