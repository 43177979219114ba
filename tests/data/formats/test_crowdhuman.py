from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.crowdhuman import FORMAT
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.types import Detections

ID = "273271,1a0d6000b9e1f5b7"


def person(box: Any, tag: Any = "person", **extra: Any) -> dict[str, Any]:
    return {"tag": tag, "fbox": box, "vbox": [0, 0, 1, 1], "hbox": [0, 0, 1, 1], "head_attr": {}, "extra": extra}


def write(root: Path, *entries: dict[str, Any], name: str = "annotation_train.odgt", images: str = "Images") -> Path:
    (root / images).mkdir(parents=True, exist_ok=True)
    for entry in entries:
        Image.new("L", (100, 80)).save(root / images / f"{entry['ID']}.jpg")
    path = root / name
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


def read(path: Path) -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, "auto")


def test_the_boxes_are_those_of_whole_persons(tmp_path: Path) -> None:
    write(tmp_path, {"ID": ID, "gtboxes": [person([10, 20, 30, 40], box_id=0), person([-5, 1, 50.5, 90], box_id=1)]})
    table = read(tmp_path)
    assert table.boxes.tolist() == [[10, 20, 40, 60], [0, 1, 45.5, 80]]
    assert (table.category_ids, table.class_names) == ((1,), ("person",))
    assert (table.file_names.tolist(), table.size(0)) == ([f"{ID}.jpg"], (80, 100))


def test_boxes_end_where_the_image_does_in_evaluation_too(tmp_path: Path) -> None:
    """As in CrowdHuman's own evaluation: else detections that are exactly what was trained on would be misses."""
    boxes = [person([10, 20, 30, 40]), person([-50, 1, 90, 190]), person([90, -9, 30, 20], ignore=1)]
    write(tmp_path, {"ID": ID, "gtboxes": boxes})
    table = read(tmp_path)
    assert table.raw_boxes.tolist() == [[10, 20, 30, 40], [0, 1, 40, 79], [90, 0, 10, 11]]
    assert table.raw_areas.tolist() == [1200, 40 * 79, 110]
    evaluator = CocoEvaluator(table.ground_truth(), table.category_ids)
    found = Detections(
        torch.zeros(1, 2, dtype=torch.long), torch.from_numpy(table.boxes.copy())[None], torch.ones(1, 2)
    )
    evaluator.update(found, torch.from_numpy(table.image_ids))
    assert evaluator.compute().AP == 1


@pytest.mark.parametrize("box", [[200, 10, 30, 40], [-40, 10, 40, 40]])
def test_a_person_outside_the_image_is_a_problem(tmp_path: Path, box: list[int]) -> None:
    write(tmp_path, {"ID": ID, "gtboxes": [person([1, 1, 5, 5]), person(box)]})
    table = read(tmp_path)
    assert [str(problem) for problem in table.problems] == [
        f"{ID}.jpg, annotation 2: bbox {[float(side) for side in box]} lies outside the image (100 x 80)"
    ]


def test_masks_and_ignored_persons_are_crowd_regions(tmp_path: Path) -> None:
    entries = [person([1, 1, 5, 5]), person([2, 2, 5, 5], "mask"), person([3, 3, 5, 5], ignore=1)]
    write(tmp_path, {"ID": ID, "gtboxes": [*entries, person([4, 4, 5, 5], ignore=0)]})
    table = read(tmp_path)
    assert table.raw_crowd.tolist() == [False, True, True, False]
    assert len(table.boxes) == 2


def test_both_files_are_parts_with_the_images_of_one_folder(tmp_path: Path) -> None:
    write(tmp_path, {"ID": "a", "gtboxes": []})
    write(tmp_path, {"ID": "b", "gtboxes": []}, name="annotation_val.odgt")
    found = {source.part: source for source in FORMAT.find(tmp_path)}
    assert {part: source.images for part, source in found.items()} == dict.fromkeys(
        ("train", "val"), tmp_path / "Images"
    )
    assert FORMAT.read(found["val"], "auto").file_names.tolist() == ["b.jpg"]


def test_images_are_found_in_any_folder_below(tmp_path: Path) -> None:
    write(tmp_path, {"ID": "a", "gtboxes": []}, images="CrowdHuman_train01/Images")
    Image.new("L", (10, 10)).save(tmp_path / "CrowdHuman_train01" / "Images" / "b.jpg")
    write(tmp_path, {"ID": "c", "gtboxes": []}, images="CrowdHuman_train02/Images")
    (tmp_path / "annotation_train.odgt").write_text('{"ID": "a", "gtboxes": []}\n{"ID": "c", "gtboxes": []}')
    assert read(tmp_path).file_names.tolist() == ["CrowdHuman_train01/Images/a.jpg", "CrowdHuman_train02/Images/c.jpg"]


def test_an_id_that_is_repeated_is_one_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = {"ID": ID, "gtboxes": [person([1, 1, 5, 5])]}
    write(tmp_path, entry, entry)
    table = read(tmp_path)
    assert (len(table), len(table.boxes)) == (1, 2)
    assert "1 lines repeat an ID" in caplog.text


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (person([1, 2, float("nan"), 4]), "fbox [1, 2, nan, 4] is not four finite numbers"),
        (person([1, 2, 3]), "fbox [1, 2, 3] is not four finite numbers"),
        (person([1, 2, 3, 4], "dog"), "unknown tag 'dog'"),
    ],
)
def test_a_broken_box_is_a_problem_of_its_image(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    write(tmp_path, {"ID": ID, "gtboxes": [bad, person([1, 1, 5, 5])]})
    table = read(tmp_path)
    assert [(problem.file_name, problem.reason) for problem in table.problems] == [(f"{ID}.jpg", reason)]
    assert len(table.boxes) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"ID": "b", "gtboxes": [{"tag"', r"line 2, is not JSON"),
        ("[1]", r"line 2, is \[1\], not an object"),
        ('{"ID": "b"}', r"line 2, has no text as 'ID' or no list as 'gtboxes'"),
        ('{"ID": "b", "gtboxes": [3]}', r"line 2, has 3 in 'gtboxes', not an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, {"ID": "a", "gtboxes": []})
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(UserError, match=rf"annotation_train\.odgt', {message}.*: mend the line"):
        read(tmp_path)


def test_missing_images_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"ID": ID, "gtboxes": []})
    (tmp_path / "Images" / f"{ID}.jpg").unlink()
    with pytest.raises(UserError, match=rf"1 of 1 images of .* the first is '{ID}\.jpg'"):
        read(tmp_path)


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, {"ID": "a", "gtboxes": []})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    assert len(read(path)) == 1


def test_other_files_are_not_taken_for_crowdhuman(tmp_path: Path) -> None:
    (tmp_path / "a.odgt").write_text("once upon a time")
    (tmp_path / "b.json").write_text('{"ID": "a", "gtboxes": []}')
    assert FORMAT.find(tmp_path) == []
    assert FORMAT.find(tmp_path / "b.json") == []
