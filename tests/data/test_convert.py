"""A data set in another format, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train import UserError
from rtdetrv2_train.commands.convert import convert
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.finding import found_sources
from rtdetrv2_train.data.index import load_source
from rtdetrv2_train.runs.configuration import composed
from tests.running import last_line, run_command


def converted(source: Path, output: Path, to: str) -> dict[str, AnnotationTable]:
    """The parts of a set after conversion."""
    with composed("convert", [f"source={source}", f"output={output}", f"format={to}"]) as config:
        convert(config)
    return parts(output)


def parts(folder: Path) -> dict[str, AnnotationTable]:
    return {source.part: load_source(source) for source in found_sources(folder)}


@pytest.fixture
def coco(make_set: Any, tmp_path: Path) -> Path:
    """A set of two parts with boxes on fractions of pixels, a crowd region, a broken box, and one that reaches out."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        annotations = []
        for number in range(40):
            left, top = rng.uniform(0, 40, 2).tolist()
            width, height = rng.uniform(0.3, 24, 2).tolist()
            box = {"id": number + 1, "image_id": 10 + number % (count - 1), "category_id": 3 if number % 3 else 7}
            annotations.append({**box, "bbox": [left, min(top, 20), width, height], "area": 0.7 * width * height})
        annotations[0] |= {"iscrowd": 1}
        annotations[1] |= {"bbox": [5, 5, 0, 3]}
        annotations[2] |= {"bbox": [-3.5, 40, 20, 30]}
        make_set(count, name=part, annotations=annotations)
    return tmp_path


def same(one: AnnotationTable, other: AnnotationTable) -> None:
    """Equal in everything that a detector learns from."""
    assert one.class_names == other.class_names
    assert [Path(name).name for name in one.file_names] == [Path(name).name for name in other.file_names]
    np.testing.assert_array_equal(one.heights, other.heights)
    np.testing.assert_array_equal(one.offsets, other.offsets)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-5)


def test_coco_to_coco_keeps_every_number(coco: Path, tmp_path: Path) -> None:
    before, after = parts(coco), converted(coco, tmp_path / "new/coco", "coco")
    assert set(after) == {"train", "val"}
    for part, table in before.items():
        same(table, after[part])
        for name in ("image_ids", "raw_images", "raw_labels", "raw_boxes", "raw_areas", "raw_crowd"):
            np.testing.assert_array_equal(getattr(table, name), getattr(after[part], name), err_msg=name)
        assert after[part].category_ids == (3, 7)
        assert after[part].path(1).read_bytes() == table.path(1).read_bytes()
    content = json.loads((tmp_path / "new/coco/annotations/instances_train.json").read_text())
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, 41))


def test_coco_to_yolo_and_back_keeps_boxes_and_classes(
    coco: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, as_yolo = parts(coco), converted(coco, tmp_path / "new/yolo", "yolo")
    assert "4 crowd regions and broken boxes are left out" in caplog.text
    back = converted(tmp_path / "new/yolo", tmp_path / "new/coco", "coco")
    for part, table in before.items():
        same(table, as_yolo[part])
        same(table, back[part])
        assert as_yolo[part].category_ids == (0, 1)


def test_yolo_keeps_images_without_objects(coco: Path, tmp_path: Path) -> None:
    converted(coco, tmp_path / "new", "yolo")
    empty = [path.name for path in (tmp_path / "new/labels/train").iterdir() if not path.read_text()]
    assert empty == ["4.txt"]


def test_classes_are_those_of_all_parts(make_set: Any, tmp_path: Path) -> None:
    make_set(2, name="train")
    make_set(2, name="val", categories=[{"id": 3, "name": "bird"}, {"id": 7, "name": "dog"}])
    after = converted(tmp_path, tmp_path / "new", "yolo")
    assert [table.class_names for table in after.values()] == [("cat", "dog", "bird")] * 2
    assert np.bincount(after["val"].labels, minlength=3).tolist() == [0, 2, 2]


def test_images_of_one_name_but_for_the_suffix_are_refused_in_yolo(make_set: Any, tmp_path: Path) -> None:
    images = [{"id": i, "file_name": name, "height": 48, "width": 64} for i, name in enumerate(("0.png", "0.jpg"))]
    _, folder = make_set(1, name="train", images=images)
    (folder / "0.jpg").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"'0.png' and '0.jpg' would share a file of labels in YOLO"):
        converted(tmp_path, tmp_path / "new", "yolo")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["output=new"], "nothing to convert: give source="),
        (["source=nowhere", "output=new"], "no data set at 'nowhere'"),
        (["source=set", "output=new", "format=yol"], "format is 'yol': did you mean 'yolo'? use one of coco, yolo"),
        (["source=set", "output=set"], "'set' is there already: give output= a new folder"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(
    make_set: Any, tmp_path: Path, given: list[str], message: str
) -> None:
    make_set(1, name="set")
    line = last_line(run_command("convert", *(each.replace("=set", f"={tmp_path}") for each in given), expect=2))
    assert message in line.replace(str(tmp_path), "set")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_images_as_stored_become_those_of_upright_ones_in_yolo(tmp_path: Path, orientation: int) -> None:
    pixels = np.zeros((40, 64), np.uint8)
    pixels[8:16, 8:40] = 255  # whole blocks of JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "set/images").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "set/images/a.jpg", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 8]}],
        "categories": [{"id": 1, "name": "white"}],
    }
    (tmp_path / "set/labels.json").write_text(json.dumps(content))
    table = converted(tmp_path / "set", tmp_path / "new", "yolo")["train"]
    left, top, right, bottom = np.rint(table.boxes[0]).astype(int).tolist()
    read = table.image(0).decode()[0].copy()
    assert read[top:bottom, left:right].min() > 200
    read[top:bottom, left:right] = 0
    assert read.max() < 50


def test_a_file_that_is_written_in_two_ways_is_one_image(make_set: Any, tmp_path: Path) -> None:
    images = [
        {"id": 10 + i, "file_name": name, "height": 48, "width": 64} for i, name in enumerate(("0.png", "./0.png"))
    ]
    make_set(2, name="train", images=images)
    assert len(converted(tmp_path, tmp_path / "new", "coco")["train"]) == 1


def test_a_place_that_cannot_be_written_and_images_that_are_missing_are_said(coco: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/new' cannot be written: .*; give another output="):
        converted(coco, tmp_path / "file/new", "yolo")
    (coco / "train/0.png").unlink()
    with pytest.raises(UserError, match=r"1 of 5 images .*: put them there, or take them out of the labels$"):
        converted(coco, tmp_path / "new", "yolo")
