from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.visdrone import FORMAT
from rtdetrv2_train.errors import UserError

FOLDER = "VisDrone2019-DET-val"


def write(root: Path, text: str, name: str = "0000001_02999_d_0000005", images: int = 1) -> Path:
    for folder in ("annotations", "images"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"{name}.txt").write_text(text)
    if images:
        Image.new("L", (100, 80)).save(root / "images" / f"{name}.jpg")
    return root


def read(path: Path) -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, "auto")


def test_boxes_and_classes_are_those_of_the_lines(tmp_path: Path) -> None:
    write(tmp_path / FOLDER, "10,20,30,40,1,4,0,1\n1,2,3,4,1,1,0,0,\n\n5,6,7,8,1,10,1,2\n")
    table = read(tmp_path)
    assert table.raw_boxes.tolist() == [[10, 20, 30, 40], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert [table.class_names[label] for label in table.raw_labels] == ["car", "pedestrian", "motor"]
    assert (table.category_ids, table.size(0)) == (tuple(range(1, 11)), (80, 100))
    assert not table.raw_crowd.any()


def test_an_ignored_region_is_a_crowd_region_of_every_class(tmp_path: Path) -> None:
    write(tmp_path, "10,20,30,40,0,0,0,0\n")
    table = read(tmp_path)
    assert table.raw_labels.tolist() == list(range(10))
    assert table.raw_crowd.all()
    assert np.allclose(table.raw_boxes, [10, 20, 30, 40], atol=1e-3)
    assert len(table.boxes) == 0


def test_a_box_of_score_zero_is_a_crowd_region_of_its_class(tmp_path: Path) -> None:
    write(tmp_path, "10,20,30,40,0,4,0,0\n")
    table = read(tmp_path)
    assert (table.raw_labels.tolist(), table.raw_crowd.tolist()) == ([3], [True])


def test_others_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path, "10,20,30,40,1,11,0,0\n1,2,3,4,1,9,0,0\n")
    table = read(tmp_path)
    assert [table.class_names[label] for label in table.raw_labels] == ["bus"]
    assert "1 boxes of category 11" in caplog.text


def test_the_folders_of_the_release_are_its_parts(tmp_path: Path) -> None:
    for name in ("VisDrone2019-DET-train", FOLDER, "VisDrone2019-DET-test-dev"):
        write(tmp_path / name, "1,2,3,4,1,9,0,0\n")
    assert {source.annotations.parent.name: source.part for source in FORMAT.find(tmp_path)} == {
        "VisDrone2019-DET-train": "train",
        FOLDER: "val",
        "VisDrone2019-DET-test-dev": "test",
    }


def test_a_folder_in_one_of_the_same_name_is_found(tmp_path: Path) -> None:
    write(tmp_path / FOLDER / FOLDER, "1,2,3,4,1,9,0,0\n")
    assert len(read(tmp_path)) == 1


def test_the_folder_of_labels_itself_is_a_set(tmp_path: Path) -> None:
    write(tmp_path, "1,2,3,4,1,9,0,0\n")
    assert len(read(tmp_path / "annotations")) == 1


def test_an_empty_file_is_an_image_without_a_box(tmp_path: Path) -> None:
    write(tmp_path, "1,2,3,4,1,9,0,0\n", "b")
    write(tmp_path, "", "a")
    assert np.diff(read(tmp_path).offsets).tolist() == [0, 1]


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.1 0.2\n", "1,2,3,4\n", "a,b,c,d,e,f,g,h\n", "1,-1,2,3,4,5,6,1,-1,-1\n"])
def test_other_text_is_not_taken_for_visdrone(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert FORMAT.find(tmp_path) == []


@pytest.mark.parametrize("line", ["10,20,30", "10,20,30,nan,1,4,0,0", "10,20,30,40,1,4,0,0,7", "x"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"1,2,3,4,1,9,0,0\n{line}\n")
    with pytest.raises(UserError, match=r"0000005\.txt', line 2: '.*' is not 8 numbers.*cut short"):
        read(tmp_path)


def test_an_unknown_category_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "1,2,3,4,1,12,0,0\n1,2,3,4,1,9,0,0\n")
    (problem,) = read(tmp_path).problems
    assert problem.reason == "line 1: unknown category 12"


def test_missing_images_are_named(tmp_path: Path) -> None:
    write(tmp_path, "1,2,3,4,1,9,0,0\n", images=0)
    with pytest.raises(UserError, match=r"1 of 1 images of .* the first is '0000001_02999_d_0000005\.jpg'"):
        read(tmp_path)


def test_images_without_labels_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "1,2,3,4,1,9,0,0\n")
    Image.new("L", (10, 10)).save(tmp_path / "images" / "more.jpg")
    assert len(read(tmp_path)) == 1
    assert "1 images have no labels" in caplog.text


def test_two_folders_of_one_part_are_refused(tmp_path: Path) -> None:
    for name in (FOLDER, "val"):
        write(tmp_path / name, "1,2,3,4,1,9,0,0\n")
    with pytest.raises(UserError, match=r"has 2 VisDrone folders for val: .*choose with data\.val\.annotations="):
        FORMAT.find(tmp_path)
