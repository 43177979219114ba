"""What is mended is what is wrong beyond doubt, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtdetrv2_train.data.formats.writers import coco_content
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.inspection.findings import Parts
from rtdetrv2_train.data.inspection.fixing import Mended, mended
from rtdetrv2_train.data.inspection.inspection import Inspected, inspect_set
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from tests.data.inspection.small_sets import CLEAN, HEIGHT, WIDTH, inspected, picture, table, write_set


def mended_boxes(of_part: Mended) -> dict[str, list[tuple[int, list[float]]]]:
    """Category and box of each annotation, by file name."""
    content = coco_content(of_part.table, of_part.table.file_names.tolist())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[tuple[int, list[float]]]] = {name: [] for name in names.values()}
    for each in content["annotations"]:
        found[names[each["image_id"]]].append((each["category_id"], each["bbox"]))
    return found


def of_rows(parts: Parts, folder: Path) -> Inspected:
    """An inspection of tables, with pictures of their size."""
    for made in parts.values():
        made.image_folder.mkdir(exist_ok=True)
        for number, name in enumerate(made.file_names.tolist()):
            cv2.imwrite(str(made.image_folder / name), picture(number))
    with LooksFile(folder / "seen", "x") as file:
        return inspect_set(parts, [], (640, 640), 300, file)


def test_a_clean_set_stays_as_it_is(tmp_path: Path) -> None:
    found = of_rows({"train": table(CLEAN, folder=str(tmp_path / "t"))}, tmp_path)
    fixed = mended(found.parts, found.looks, found.findings)["train"]
    assert fixed.changes == {}
    before, after = found.parts["train"], fixed.table
    assert coco_content(after, after.file_names.tolist()) == coco_content(before, before.file_names.tolist())


def test_broken_boxes_go_and_those_that_reach_out_are_cut(tmp_path: Path) -> None:
    rows = [
        *[("cat", (10, 10, 0, 20)), ("cat", (300, 10, 20, 20)), ("dog", (180, 140, 40, 30)), ("dog", (30, 30, 50, 50))],
        *[("dog", (30.4, 30, 50, 50)), ("cat", (30, 30, 50, 50)), ("bird", (1, 2, 30, 40))],
    ]
    found = of_rows({"train": table([*CLEAN, rows], folder=str(tmp_path / "t"))}, tmp_path)
    fixed = mended(found.parts, found.looks, found.findings)["train"]
    assert mended_boxes(fixed)["4.jpg"] == [(2, [180, 140, 20, 10]), (2, [30, 30, 50, 50]), (1, [30, 30, 50, 50])]
    assert fixed.changes == {
        "annotations that cannot be used left out": 1,
        "boxes cut at the border of their image": 1,
        "boxes of no area removed": 1,
        "boxes outside of their image removed": 1,
        "second boxes of an object removed": 1,
    }
    assert len(mended_boxes(fixed)["0.jpg"]) == 3


@pytest.mark.parametrize("convention", ["corners", "shares", "centres"])
def test_boxes_meant_in_another_way_are_converted(tmp_path: Path, convention: str) -> None:
    rows = [("cat", (left, top, 40.0, 30.0)) for left in (5, 90, 150) for top in (3, 60, 110)]
    meant = {
        "corners": [(name, (x, y, x + w, y + h)) for name, (x, y, w, h) in rows],
        "centres": [(name, (x + w / 2, y + h / 2, w, h)) for name, (x, y, w, h) in rows],
        "shares": [(name, (x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT)) for name, (x, y, w, h) in rows],
    }[convention]
    found = of_rows({"train": table([meant, meant], folder=str(tmp_path / "t"))}, tmp_path)
    fixed = mended(found.parts, found.looks, found.findings)["train"]
    boxes = np.array([box for _, box in mended_boxes(fixed)["1.jpg"]])
    np.testing.assert_allclose(boxes, [box for _, box in rows], atol=1e-9)
    np.testing.assert_allclose(fixed.table.raw_areas, 1200)
    assert list(fixed.changes) == ["boxes meant in another way converted"]


def test_classes_of_the_same_name_are_united_under_the_commoner_one(tmp_path: Path) -> None:
    rows = [
        [("Cat", (10, 10, 40, 30))],
        [("cat", (10, 10, 40, 30)), ("cat", (80, 60, 50, 60))],
        [("dog", (5, 5, 90, 90))],
    ]
    found = of_rows({"train": table(rows, ["Cat", "cat", "dog"], folder=str(tmp_path / "t"))}, tmp_path)
    fixed = mended(found.parts, found.looks, found.findings)["train"].table
    assert fixed.class_names == ("cat", "dog")
    assert fixed.category_ids == (2, 3)
    assert fixed.raw_labels.tolist() == [0, 0, 0, 1]


def test_images_go_that_cannot_be_read_are_copies_or_are_evaluated_on(tmp_path: Path) -> None:
    pictures = {f"{number}.jpg": picture(number) for number in range(8)}
    root = write_set(tmp_path / "set", {"train": pictures, "val": {"v.jpg": picture(2), "w.jpg": picture(30)}})
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    (root / "train" / "again.jpg").write_bytes((root / "train" / "5.jpg").read_bytes())
    content["images"].append({**content["images"][5], "id": 9, "file_name": "again.jpg"})
    content["annotations"] += [{**a, "image_id": 9} for a in content["annotations"] if a["image_id"] == 6]
    file.write_text(json.dumps(content))
    (root / "train" / "7.jpg").unlink()
    found = inspected(root, tmp_path / "seen")
    fixed = mended(found.parts, found.looks, found.findings)
    assert fixed["train"].table.file_names.tolist() == ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "5.jpg", "6.jpg"]
    assert fixed["val"].table.file_names.tolist() == ["v.jpg", "w.jpg"]
    assert fixed["train"].changes == {
        "unreadable images left out": 1,
        "copies of images left out": 1,
        "images left out that are evaluated on, too": 1,
    }


def test_sizes_are_swapped_only_where_all_boxes_fit(tmp_path: Path) -> None:
    pictures = {f"{number}.jpg": picture(number) for number in range(4)}
    swapped = {"width": HEIGHT, "height": WIDTH}
    root = write_set(tmp_path / "set", {"train": pictures}, train={"1.jpg": swapped, "2.jpg": swapped})
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    next(a for a in content["annotations"] if a["image_id"] == 3)["bbox"] = [10, 120, 50, 60]  # fits as annotated only
    file.write_text(json.dumps(content))
    found = inspected(root, tmp_path / "seen")
    fixed = mended(found.parts, found.looks, found.findings)["train"]
    assert fixed.changes == {"widths and heights swapped": 1}
    assert fixed.table.widths.tolist() == [WIDTH, WIDTH, HEIGHT, WIDTH]


def test_what_was_mended_reads_back_and_is_clean(tmp_path: Path) -> None:
    rows = [("cat", (10, 10, 0, 20)), ("dog", (180, 140, 40, 30)), ("dog", (30, 30, 50, 50)), ("dog", (30, 30, 50, 50))]
    found = of_rows({"train": table([*CLEAN, rows], folder=str(tmp_path / "t"))}, tmp_path)
    fixed = mended(found.parts, found.looks, found.findings)["train"].table
    (tmp_path / "fixed.json").write_text(json.dumps(coco_content(fixed, fixed.file_names.tolist())))
    again = load_annotations(tmp_path / "fixed.json", tmp_path / "t")
    assert again.problems == ()
    with LooksFile(tmp_path / "seen", "x") as file:
        checks = {each.check for each in inspect_set({"train": again}, [], (640, 640), 300, file).findings}
    assert checks <= {"rare_classes", "images_without_boxes"}
