"""Labels and suggestions as CVAT and Label Studio read them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import with_names_of_files
from rtdetrv2_train.data.formats.corrections import reviewed_images
from rtdetrv2_train.data.formats.cvat_writer import write_cvat
from rtdetrv2_train.data.formats.label_studio import write_label_studio
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.suggestion import Suggestion

# Each image of the set, 64 x 48, has a cat at (4, 6, 20, 10) and a dog at (30.5, 12.25, 25, 30), in this order.
CAT, DOG = (4.0, 6.0, 20.0, 10.0), (30.5, 12.25, 25.0, 30.0)
SUGGESTIONS = [
    Suggestion("wrong class", 0.9, 11, 2, "cat", CAT, "dog", (5.0, 6.0, 19.0, 10.0), 0.8),
    Suggestion("missing box", 0.7, 12, found_class="cat", found_box=(10.0, 20.0, 16.0, 12.0), found_score=0.6),
    Suggestion("badly placed", 0.6, 12, 5, "dog", DOG, "dog", (20.0, 12.0, 25.0, 30.0), 0.5),
    Suggestion("no object", 0.5, 12, 4, "cat", CAT),
]


@pytest.fixture
def table(make_set: Any) -> AnnotationTable:
    return load_annotations(*make_set(3))


def cvat_boxes(path: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Label, source and note of the boxes of each image."""
    return {
        image.attrib["name"]: [
            (box.attrib["label"], box.attrib["source"], box.findtext("attribute[@name='suggestion']") or "")
            for box in image.iter("box")
        ]
        for image in ElementTree.parse(path).iter("image")
    }


def test_cvat_has_the_labels_as_they_are_with_notes_and_what_is_missing(table: AnnotationTable, tmp_path: Path) -> None:
    boxes = cvat_boxes(write_cvat(table, SUGGESTIONS, tmp_path / "annotations.xml"))
    assert boxes == {
        "0.png": [("cat", "manual", ""), ("dog", "manual", "")],
        "1.png": [("cat", "manual", "0.90 wrong class: cat, found dog 0.80"), ("dog", "manual", "")],
        "2.png": [
            ("cat", "manual", "0.50 no object: cat"),
            ("dog", "manual", "0.60 badly placed: dog, found dog 0.50"),
            ("cat", "auto", "0.70 missing box: cat 0.60"),
        ],
    }


def test_what_cvat_gets_is_the_set_when_it_is_read_again(table: AnnotationTable, tmp_path: Path) -> None:
    path = write_cvat(table, SUGGESTIONS, tmp_path / "annotations.xml")
    again = load_annotations(path, table.image_folder)
    assert again.class_names == table.class_names
    assert again.file_names.tolist() == table.file_names.tolist()
    assert (again.widths.tolist(), again.heights.tolist()) == ([64] * 3, [48] * 3)
    assert again.raw_labels.tolist() == [*table.raw_labels.tolist(), 0]
    expected = np.concatenate([table.raw_boxes, [SUGGESTIONS[1].found_box]])
    np.testing.assert_allclose(again.raw_boxes, expected, atol=0.005)


def test_cvat_gets_the_labels_of_a_task_with_the_attribute_of_the_notes(table: AnnotationTable, tmp_path: Path) -> None:
    path = write_cvat(table, [], tmp_path / "annotations.xml")
    labels = json.loads((tmp_path / "cvat_labels.json").read_text())
    assert [(label["name"], [a["name"] for a in label["attributes"]]) for label in labels] == [
        ("cat", ["suggestion"]),
        ("dog", ["suggestion"]),
    ]
    of_meta = ElementTree.parse(path).findall("meta/task/labels/label")
    assert [label.findtext("attributes/attribute/name") for label in of_meta] == ["suggestion"] * 2


def test_images_are_numbered_in_the_order_of_their_names_as_cvat_numbers_frames(
    table: AnnotationTable, tmp_path: Path
) -> None:
    shuffled = replace(table, file_names=np.array(["b.png", "c.png", "a/z.png"]), index=None)
    root = ElementTree.parse(write_cvat(shuffled, [], tmp_path / "annotations.xml"))
    numbered = [(image.attrib["id"], image.attrib["name"]) for image in root.iter("image")]
    assert numbered == [("0", "a/z.png"), ("1", "b.png"), ("2", "c.png")]


def tasks(table: AnnotationTable, suggestions: list[Suggestion], folder: Path) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = json.loads(
        write_label_studio(table, suggestions, folder / "tasks.json").read_text()
    )
    return written


def places(regions: list[dict[str, Any]]) -> list[tuple[str, list[float]]]:
    """Label of each region, and its box in pixels of an image of 64 x 48."""
    sides = {"x": 0.64, "y": 0.48, "width": 0.64, "height": 0.48}
    return [
        (it["value"]["rectanglelabels"][0], [round(it["value"][key] * side, 6) for key, side in sides.items()])
        for it in regions
    ]


def test_label_studio_has_tasks_with_the_most_suspicious_image_first(table: AnnotationTable, tmp_path: Path) -> None:
    written = tasks(table, SUGGESTIONS, tmp_path)
    assert [task["data"]["file_name"] for task in written] == ["1.png", "2.png", "0.png"]
    assert [task["data"]["suspicion"] for task in written] == [0.9, 0.7, 0]
    assert written[0]["data"]["image"] == "/data/local-files/?d=set/1.png"
    assert "predictions" not in written[2]


def test_regions_are_in_percent_of_the_image(table: AnnotationTable, tmp_path: Path) -> None:
    (region, _) = tasks(table, [], tmp_path)[0]["annotations"][0]["result"]
    assert region["value"].pop("rectanglelabels") == ["cat"]
    assert region["value"] == pytest.approx({"x": 6.25, "y": 12.5, "width": 31.25, "height": 1000 / 48, "rotation": 0})
    assert (region["original_width"], region["original_height"], region["type"]) == (64, 48, "rectanglelabels")
    config = ElementTree.parse(tmp_path / "label_studio_config.xml")
    assert config.find("RectangleLabels").attrib == {"name": region["from_name"], "toName": region["to_name"]}
    assert config.find("Image").attrib["name"] == region["to_name"]
    assert [label.attrib["value"] for label in config.iter("Label")] == ["cat", "dog"]


def test_predictions_of_label_studio_are_the_labels_with_every_suggestion_followed(
    table: AnnotationTable, tmp_path: Path
) -> None:
    first, second, _ = tasks(table, SUGGESTIONS, tmp_path)
    assert places(first["annotations"][0]["result"]) == [("cat", list(CAT)), ("dog", list(DOG))]
    (prediction,) = first["predictions"]
    assert places(prediction["result"]) == [("dog", list(CAT)), ("dog", list(DOG))]
    assert prediction["score"] == 0.9
    assert [region.get("score") for region in prediction["result"]] == [0.9, None]
    assert prediction["result"][0]["meta"]["text"] == ["wrong class: cat, found dog 0.80"]
    assert places(second["annotations"][0]["result"]) == [("cat", list(CAT)), ("dog", list(DOG))]
    followed = places(second["predictions"][0]["result"])
    assert followed == [("dog", [20.0, 12.0, 25.0, 30.0]), ("cat", [10.0, 20.0, 16.0, 12.0])]
    ids = [
        region["id"]
        for task in (first, second)
        for kind in ("annotations", "predictions")
        for region in task[kind][0]["result"]
    ]
    assert len(ids) == len(set(ids))


def test_names_of_images_are_quoted_and_those_that_label_studio_gives_back_are_found(
    table: AnnotationTable, tmp_path: Path
) -> None:
    (table.image_folder / "more").mkdir()
    odd = "more/a & b#1.png"
    (table.image_folder / "0.png").rename(table.image_folder / odd)
    renamed = replace(table, file_names=np.array([odd, "1.png", "2.png"]), index=None)
    written = tasks(renamed, [], tmp_path)
    assert written[0]["data"]["image"] == "/data/local-files/?d=set/more/a%20%26%20b%231.png"
    exported = replace(table, file_names=np.array([task["data"]["image"] for task in written]), index=None)
    assert with_names_of_files(exported, may_lack=False).file_names.tolist() == [odd, "1.png", "2.png"]


def test_crowd_regions_and_broken_boxes_are_left_out_with_a_warning_and_boxes_are_cut(
    make_set: Any, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [([1, 2, 3, 4], 1), ([5, 5, 0, 3], 0), ([-3, 40, 20, 30], 0), ([10, 10, 5, 5], 0)]
    annotations = [
        {"id": n, "image_id": 10, "category_id": 3, "bbox": box, "iscrowd": crowd}
        for n, (box, crowd) in enumerate(boxes)
    ]
    table = load_annotations(*make_set(1, annotations=annotations))
    outside = Suggestion("missing box", 0.9, 10, found_class="dog", found_box=(60.0, -2.0, 10.0, 8.0), found_score=0.9)
    (image,) = reviewed_images(table, [outside])
    assert [region.box for region in image.labels] == [(0, 40, 17, 48), (10, 10, 15, 15)]
    assert [region.box for region in image.added] == [(60, 0, 64, 6)]
    assert "2 crowd regions and broken boxes are left out" in caplog.text


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_labels_and_detections_are_turned_as_the_tools_turn_images(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((40, 64), np.uint8)
    pixels[8:16, 8:40] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 8]}],
        "categories": [{"id": 1, "name": "white"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    table = load_annotations(tmp_path / "labels.json", tmp_path)
    found = Suggestion("missing box", 0.9, 1, found_class="white", found_box=(8.0, 8.0, 32.0, 8.0), found_score=0.9)
    (image,) = reviewed_images(table, [found])
    assert image.labels[0].box == image.added[0].box
    if orientation in (6, 8):  # the only ones that the size of the image tells from those as it is stored
        assert (image.height, image.width) == (64, 40)
        seen = np.asarray(
            Image.fromarray(pixels).transpose(
                {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}[orientation]
            )
        )
        left, top, right, bottom = map(int, image.labels[0].box)
        assert seen[top:bottom, left:right].min() == 255
    else:
        assert image.labels[0].box == (8, 8, 40, 16)
