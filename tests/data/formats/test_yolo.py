from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats import folder_state, yolo_images
from rtdetrv2_train.data.formats.source import Source
from rtdetrv2_train.data.formats.yolo import FORMAT
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.errors import UserError

HEIGHT, WIDTH = 100, 200
NAMES = "names: [cat, dog, bird]\n"
FOLDERS = "train: images/train\nval: images/val\n"
ROW = "0 0.5 0.5 0.25 0.5"  # left 75, top 25, 50 wide, 50 high


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def picture(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), dtype=np.uint8)).save(path, **options)
    return path


def pair(folder: Path, inner: str, name: str, rows: str | None = ROW) -> None:
    """An image and its labels: ``images/<inner>`` and ``labels/<inner>``."""
    picture(folder / "images" / inner / f"{name}.jpg")
    if rows is not None:
        write(folder / "labels" / inner / f"{name}.txt", rows)


def standard(folder: Path, rows: str | None = ROW, described: str = NAMES + FOLDERS) -> Path:
    """A set with one image for training and one for validation."""
    pair(folder, "train", "a", rows)
    pair(folder, "val", "b")
    write(folder / "data.yaml", described)
    return folder


def read(path: Path, part: str = "train", exif: Exif = "auto") -> AnnotationTable:
    return FORMAT.read(source_of(path, part), exif)


def source_of(path: Path, part: str = "train") -> Source:
    (source,) = [source for source in FORMAT.find(path) if source.part == part]
    return source


def parts(path: Path) -> dict[str, list[str]]:
    """The names of the images of each part."""
    return {source.part: FORMAT.read(source, "auto").file_names.tolist() for source in FORMAT.find(path)}


def boxes_of(folder: Path, rows: str, described: str = NAMES + FOLDERS) -> list[list[float]]:
    """Class and xywh of every object of the only image, in the order of the file."""
    table = read(standard(folder, rows, described))
    ids = [table.category_ids[label] for label in table.raw_labels]
    return [[id_, *box] for id_, box in zip(ids, table.raw_boxes.round(9).tolist(), strict=True)]


def test_boxes_are_shares_of_the_image_around_their_middle(tmp_path: Path) -> None:
    table = read(standard(tmp_path, "2 0.5 0.5 0.25 0.5\n0 0.1 0.2 0.1 0.2\n"))
    assert (table.category_ids, table.class_names) == ((0, 1, 2), ("cat", "dog", "bird"))
    assert table.file_names.tolist() == ["a.jpg"]
    assert (table.size(0), table.path(0)) == ((HEIGHT, WIDTH), tmp_path / "images/train/a.jpg")
    np.testing.assert_allclose(table.raw_boxes, [[75, 25, 50, 50], [10, 10, 20, 20]])
    np.testing.assert_allclose(table.boxes, [[75, 25, 125, 75], [10, 10, 30, 30]])
    assert table.raw_labels.tolist() == [2, 0]
    np.testing.assert_allclose(table.raw_areas, [2500, 400])
    assert not table.raw_crowd.any()


@pytest.mark.parametrize(
    ("row", "box"),
    [
        ("1 0.1 0.2 0.4 0.2 0.3 0.6", [1, 20, 20, 60, 40]),
        ("1 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6", [1, 20, 20, 60, 40]),
        ("1 0.25 0.1 0.5 0.5 0.25 0.9 0.0 0.5", [1, 0, 10, 100, 80]),
        ("1 0.1 0.2 0.4 0.2 0.3 0.6 0.93", [1, 20, 20, 60, 40]),
        ("1 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6 0.7", [1, 20, 20, 60, 40]),
        ("1 0.5 0.5 0.25 0.5 0.87", [1, 75, 25, 50, 50]),
        ("1.0 0.5 0.5 0.25 0.5", [1, 75, 25, 50, 50]),
        ("  1\t0.5  0.5 2.5e-1 .5  ", [1, 75, 25, 50, 50]),
        ("\ufeff1 0.5 0.5 0.25 0.5\r\n\r\n", [1, 75, 25, 50, 50]),
    ],
    ids=[
        "triangle",
        "four corners",
        "turned",
        "polygon and confidence",
        "turned and confidence",
        "confidence",
        "class as float",
        "blanks",
        "mark",
    ],
)
def test_every_kind_of_row_gives_its_box(tmp_path: Path, row: str, box: list[float]) -> None:
    assert boxes_of(tmp_path, row) == [box]


def test_kinds_of_rows_may_be_mixed_in_a_file(tmp_path: Path) -> None:
    rows = "0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.4 0.2 0.3 0.6\n2 0.5 0.5 0.5 0.5 0.9\n0 0.25 0.25 0.5 0.5\n"
    assert boxes_of(tmp_path, rows) == [
        [0, 75, 25, 50, 50],
        [1, 20, 20, 60, 40],
        [2, 50, 25, 100, 50],
        [0, 0, 0, 100, 50],
    ]


@pytest.mark.parametrize(
    ("shape", "points"),
    [("[2, 3]", "0.1 0.1 2 0.9 0.9 0"), ("[3, 2]", "0.1 0.1 0.9 0.9 0 0"), ("[1, 2]", "0.9 0.9")],
)
def test_a_pose_has_the_box_that_stands_before_its_points(tmp_path: Path, shape: str, points: str) -> None:
    described = f"{NAMES}{FOLDERS}kpt_shape: {shape}\n"
    outline, polygon = "1 0.1 0.1 0.3 0.1 0.3 0.3 0.2 0.35 0.1 0.3 0.1 0.2", [1, 20, 10, 40, 25]
    rows = f"0 0.5 0.5 0.25 0.5 {points}\n0 0.5 0.5 0.5 0.5 {points} 0.8\n{outline}\n"
    assert boxes_of(tmp_path, rows, described) == [[0, 75, 25, 50, 50], [0, 50, 25, 100, 50], polygon]


def test_the_same_numbers_are_a_polygon_where_the_set_has_no_poses(tmp_path: Path) -> None:
    assert boxes_of(tmp_path, "0 0.5 0.5 0.25 0.5 0.9 0.9") == [[0, 50, 50, 130, 40]]


def test_a_pose_with_visibilities_is_not_taken_for_a_polygon(tmp_path: Path) -> None:
    points = " ".join(f"0.{number + 1} 0.5 {visibility}" for number, visibility in enumerate((2, 1, 0, 2)))
    with pytest.raises(UserError, match=r"line 1: a pose with visibilities: give kpt_shape in data.yaml"):
        boxes_of(tmp_path, f"0 0.5 0.5 0.25 0.5 {points}")


def test_repeated_rows_count_once_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = f"{ROW}\n1 0.1 0.1 0.1 0.1\n{ROW}\n0.0 0.50 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5"
    assert [box[0] for box in boxes_of(tmp_path, rows)] == [0, 1, 1]
    assert "2 rows are repeated" in caplog.text


def test_different_polygons_with_the_same_box_count_as_often_as_they_are_there(tmp_path: Path) -> None:
    rows = "1 0.1 0.2 0.4 0.2 0.3 0.6\n1 0.1 0.2 0.4 0.6 0.4 0.2\n1 0.1 0.2 0.4 0.2 0.3 0.6\n"
    assert boxes_of(tmp_path, rows) == [[1, 20, 20, 60, 40]] * 2


def test_boxes_over_the_edge_are_clipped_for_training_only(tmp_path: Path) -> None:
    table = read(standard(tmp_path, "0 0.95 0.5 0.25 1.02\n0 1.001 0.5 0.5 0.5"))
    np.testing.assert_allclose(table.raw_boxes, [[165, -1, 50, 102], [150.2, 25, 100, 50]])
    np.testing.assert_allclose(table.boxes, [[165, 0, 200, 100], [150.2, 25, 200, 75]], rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 -0.1 0.5", "no width or no height"),
        ("0 0.5 0.5 0 0.5", "no width or no height"),
        ("0 0.5 0.5 nan 0.5", "0 0.5 0.5 nan 0.5 has numbers that are not finite"),
        ("0 inf 0.5 0.1 0.5", "0 inf 0.5 0.1 0.5 has numbers that are not finite"),
        ("0 0.1 0.1 nan 0.2 0.3 0.3", "0 0.1 0.1 nan 0.2 ... has numbers that are not finite"),
        ("0 1.5 0.5 0.2 0.2", "lies outside the image (200 x 100)"),
        ("0 100 50 50 50", "0 100 50 50 50 is far outside: coordinates are shares"),
        ("0 20 20 80 20 60 60", "0 20 20 80 20 ... is far outside"),
    ],
)
def test_a_broken_box_is_left_out_and_named_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    table = read(standard(tmp_path, f"{ROW}\n{row}\n1 0.5 0.5 0.5 0.5"))
    (problem,) = table.problems
    assert (problem.file_name, problem.annotation_id) == ("a.jpg", 2)
    assert reason in problem.reason
    assert table.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("cat 0.5 0.5 0.1 0.1", "'cat 0.5 0.5 0.1 0.1' is not numbers"),
        ("0,0.5,0.5,0.1,0.1", "'0,0.5,0.5,0.1,0.1' is not numbers"),
        ("0 0.5 0.5 0_1 0.1", "'0 0.5 0.5 0_1 0.1' is not numbers"),
        ("0 0.5 0.5 0.1", "4 numbers, where a box has 5"),
        ("0", "1 numbers, where a box has 5"),
        ("3 0.5 0.5 0.1 0.1", "class 3, and '.*data.yaml' names 3 classes, 0 to 2: correct the row, or add the name"),
        ("-1 0.5 0.5 0.1 0.1", "class -1, and"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5, which is no whole number"),
        ("nan 0.5 0.5 0.1 0.1", "class nan"),
        ("\x00\x01", r"'.*' is not numbers"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_line(tmp_path: Path, row: str, reason: str) -> None:
    folder = standard(tmp_path, f"{ROW}\n\n{row}\n")
    with pytest.raises(UserError, match=rf"'.*labels/train/a\.txt', line 3: {reason}") as raised:
        read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("rows", [None, "", "\n  \n"])
def test_images_without_labels_have_no_objects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: str | None
) -> None:
    standard(tmp_path)
    pair(tmp_path, "train", "empty", rows)
    table = read(tmp_path)
    assert table.file_names.tolist() == ["a.jpg", "empty.jpg"]
    assert [len(table.targets(index)[0]) for index in range(2)] == [1, 0]
    assert caplog.text == ""


def test_a_part_without_any_label_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read(standard(tmp_path, None))
    assert len(table.boxes) == 0
    assert f"no image has a label file; looked for them in '{tmp_path}/" in caplog.text


def test_labels_without_an_image_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    standard(tmp_path)
    for name in ("lost", "gone", "classes"):
        write(tmp_path / f"labels/train/{name}.txt", ROW)
    read(tmp_path)
    assert f"2 label files have no image, the first is '{tmp_path}/labels/train/gone.txt'" in caplog.text


@pytest.mark.parametrize(("exif", "size"), [("ignore", (100, 200)), ("auto", (200, 100)), ("apply", (200, 100))])
def test_labels_are_of_the_image_as_its_exif_turns_it(tmp_path: Path, exif: Exif, size: tuple[int, int]) -> None:
    standard(tmp_path)
    block = Image.Exif()
    block[0x0112] = 6
    picture(tmp_path / "images/train/a.jpg", exif=block.tobytes())
    table = read(tmp_path, exif=exif)
    assert table.size(0) == size
    height, width = size
    np.testing.assert_allclose(table.raw_boxes, [[0.375 * width, 0.25 * height, 0.25 * width, 0.5 * height]])


def roboflow(folder: Path) -> None:
    for part, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        picture(folder / part / "images" / f"{name}.jpg")
        write(folder / part / "labels" / f"{name}.txt", ROW)
    write(folder / "data.yaml", f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 3\n{NAMES}")


def absolute_path(folder: Path) -> None:
    standard(folder / "set")
    write(folder / "set/data.yaml", "")
    (folder / "set/data.yaml").unlink()
    write(folder / "other/mine.yaml", f"path: {folder / 'set'}\n{NAMES}{FOLDERS}")


LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "relative to the file": standard,
    "path is here": lambda folder: standard(folder, described=f"path: .\n{NAMES}{FOLDERS}"),
    "path is somewhere else": lambda folder: standard(folder, described=f"path: ../datasets/x\n{NAMES}{FOLDERS}"),
    "path of another machine": lambda folder: standard(folder, described=f"path: /content/x\n{NAMES}{FOLDERS}"),
    "path is absolute": lambda folder: standard(folder, described=f"path: {folder}\n{NAMES}{FOLDERS}"),
    "parts are absolute": lambda folder: standard(
        folder, described=f"{NAMES}train: {folder}/images/train\nval: {folder}/images/val\n"
    ),
    "parts are lists": lambda folder: standard(
        folder, described=f"{NAMES}train:\n  - images/train\nval: ['images/val']\n"
    ),
    "backslashes": lambda folder: standard(folder, described=f"{NAMES}train: images\\train\nval: .\\images\\val\n"),
    "names are a map": lambda folder: standard(folder, described=f"names:\n  0: cat\n  1: dog\n  2: bird\n{FOLDERS}"),
    "valid": lambda folder: standard(folder, described=f"{NAMES}train: images/train\nvalid: images/val\ntest: \n"),
    "no names": lambda folder: standard(folder, described=f"nc: 3\n{FOLDERS}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_of_a_data_yaml_are_found_however_it_is_written(tmp_path: Path, layout: str) -> None:
    LAYOUTS[layout](tmp_path)
    for path in (tmp_path, tmp_path / "data.yaml"):
        assert parts(path) == {"train": ["a.jpg"], "val": ["b.jpg"]}
    assert len(read(tmp_path).boxes) == 1


def test_roboflow_writes_a_folder_above_that_is_not_meant(tmp_path: Path) -> None:
    roboflow(tmp_path)
    assert parts(tmp_path) == {"train": ["a.jpg"], "val": ["b.jpg"], "test": ["c.jpg"]}
    assert len(read(tmp_path, "test").boxes) == 1


def test_a_file_of_another_name_that_lies_elsewhere(tmp_path: Path) -> None:
    absolute_path(tmp_path)
    assert parts(tmp_path / "other") == parts(tmp_path / "other/mine.yaml") == {"train": ["a.jpg"], "val": ["b.jpg"]}
    source = source_of(tmp_path / "other")
    assert source == Source(
        "yolo", tmp_path / "other/mine.yaml", tmp_path / "set/images/train", "train", tmp_path / "set/images/train"
    )


def test_only_the_parts_that_are_there_come_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    standard(tmp_path, described=f"{NAMES}train: images/train\n")
    assert parts(tmp_path) == {"train": ["a.jpg"]}
    with caplog.at_level(logging.INFO):
        standard(tmp_path, described=f"{NAMES}{FOLDERS}test: ../test/images\n")
        assert list(parts(tmp_path)) == ["train", "val"]
    assert "'test' is '../test/images', which is nowhere" in caplog.text
    standard(tmp_path, described=f"{NAMES}{FOLDERS}val: null\ntest: ~\n")
    assert list(parts(tmp_path)) == ["train"]


@pytest.mark.parametrize("path", ["", "path: elsewhere\n"])
def test_a_part_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path, path: str) -> None:
    standard(tmp_path, described=f"{path}{NAMES}train: images/train\nval: ../pictures\n")
    with pytest.raises(UserError) as raised:
        FORMAT.find(tmp_path)
    message = str(raised.value)
    assert f"'{tmp_path}/data.yaml': 'val' is '../pictures', which is nowhere" in message
    assert f"looked for '{tmp_path.parent}/pictures' and '{tmp_path}/pictures'" in message
    assert ("'elsewhere'" in message) == bool(path)


def test_several_folders_make_one_part(tmp_path: Path) -> None:
    standard(tmp_path, described=f"{NAMES}train: [images/train, images/more, images/train]\nval: images/val\n")
    pair(tmp_path, "more", "c", "1 0.5 0.5 0.5 0.5")
    pair(tmp_path, "more/inner", "d", "2 0.5 0.5 0.5 0.5")
    source = source_of(tmp_path)
    assert (source.images, source.listing) == (tmp_path / "images", None)
    table = FORMAT.read(source, "auto")
    assert table.file_names.tolist() == ["more/c.jpg", "more/inner/d.jpg", "train/a.jpg"]
    assert table.labels.tolist() == [1, 2, 0]


def of_lines(folder: Path, lines: list[str], **others: str) -> Path:
    """A set whose training part is a list of images."""
    standard(folder, described=f"{NAMES}train: lists/train.txt\nval: images/val\n")
    pair(folder, "train", "unlisted")
    write(folder / "lists/train.txt", "\n".join(lines))
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "{folder}/images/train/a.jpg",
        "images/train/a.jpg",
        "./images/train/a.jpg",
        "../images/train/a.jpg",
        "/elsewhere/darknet/data/images/train/a.jpg",
        "data/images/train/a.jpg",
        "images\\train\\a.jpg",
    ],
)
def test_a_part_may_be_a_list_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: str) -> None:
    listed = [line.format(folder=tmp_path), "", line.format(folder=tmp_path)]
    table = read(of_lines(tmp_path, listed))
    assert table.file_names.tolist() == ["a.jpg"]
    assert table.path(0) == tmp_path / "images/train/a.jpg"
    assert len(table.boxes) == 1
    assert caplog.text == ""


def test_a_list_may_name_images_of_several_folders(tmp_path: Path) -> None:
    table = read(of_lines(tmp_path, ["images/val/b.jpg", "images/train/a.jpg"]))
    assert table.file_names.tolist() == ["train/a.jpg", "val/b.jpg"]
    assert len(table.boxes) == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"the list of images '.*train\.txt' is empty"),
        (["images/no.jpg", "no/a.png"], r"'.*train\.txt', line 1: 'images/no\.jpg' is no image; looked for it in '"),
    ],
)
def test_a_list_that_names_no_image_is_an_error(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FORMAT.find(of_lines(tmp_path, lines))


def test_an_image_of_a_list_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = of_lines(tmp_path, ["images/train/a.jpg", "images/train/gone.jpg"])
    with pytest.raises(UserError, match=r"the image '.*/images/train/gone\.jpg' is missing"):
        read(folder)


def test_names_may_have_gaps_and_look_like_other_things(tmp_path: Path) -> None:
    described = f"names: {{0: no, 5: 1, '9': 1.50}}\n{FOLDERS}"
    table = read(standard(tmp_path, "5 0.5 0.5 0.5 0.5\n9 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5", described))
    assert (table.category_ids, table.class_names) == ((0, 5, 9), ("no", "1", "1.50"))
    assert table.labels.tolist() == [1, 2, 0]
    write(tmp_path / "labels/train/a.txt", "4 0.5 0.5 0.5 0.5")
    with pytest.raises(UserError, match=r"line 1: class 4, and '.*data\.yaml' names 3 classes, 0, 5, 9: correct"):
        read(tmp_path)


def test_names_count_where_nc_says_something_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read(standard(tmp_path, described=f"nc: 80\n{NAMES}{FOLDERS}"))
    assert table.num_classes == 3
    assert "'nc' is 80, and 'names' has 3: the names count" in caplog.text


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (f"names: cat\n{FOLDERS}", r"'names' is 'cat': give the names of the classes as a list"),
        (f"names: []\n{FOLDERS}", r"'names' is \[\]"),
        (f"names: {{a: cat}}\n{FOLDERS}", r"'names' has the key 'a'"),
        (f"names: {{-1: cat}}\n{FOLDERS}", r"'names' has the key '-1'"),
        (f"names: {{0: cat, '00': dog}}\n{FOLDERS}", r"'names' has the key '00'"),
        (f"names: [cat, '']\n{FOLDERS}", r"class 1 of 'names' is ''"),
        (f"names: [cat, [dog]]\n{FOLDERS}", r"class 1 of 'names' is \['dog'\]"),
        (f"{NAMES}train: {{a: b}}\n", r"'train' is {'a': 'b'}: give a folder"),
        (f"{NAMES}path: [a]\n{FOLDERS}", r"'path' is \['a'\]: give a folder"),
        (f"{NAMES}{FOLDERS}kpt_shape: 17\n", r"'kpt_shape' is '17': give the number of points"),
        (f"{NAMES}{FOLDERS}kpt_shape: [17, 4]\n", r"'kpt_shape' is \['17', '4'\]"),
        (f"{NAMES}train: [\n", r"line \d is not YAML \(.+\): it needs 'names'"),
    ],
)
def test_a_data_yaml_that_is_wrong_is_an_error(tmp_path: Path, described: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"'.*data\.yaml'.*{message}") as raised:
        FORMAT.find(standard(tmp_path, described=described))
    assert "\n" not in str(raised.value)


def test_yaml_files_of_something_else_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "broken.yaml", "a: [")
    write(tmp_path / "other.yml", "train: 3\n")
    assert FORMAT.find(tmp_path) == FORMAT.find(tmp_path / "other.yml") == FORMAT.find(tmp_path / "broken.yaml") == []
    assert FORMAT.find(tmp_path / "nowhere") == []
    standard(tmp_path)
    write(tmp_path / "a.yaml", "names: [x]\ntrain: nowhere\n")
    assert source_of(tmp_path).annotations == tmp_path / "data.yaml"
    assert "holds 'data.yaml', 'a.yaml': the first is taken" in caplog.text


def darknet(folder: Path, names: str = "cat\ndog\nbird\n\n") -> Path:
    """As CVAT writes it: paths begin with a folder that is not there."""
    picture(folder / "obj_train_data/a.jpg")
    write(folder / "obj_train_data/a.txt", ROW)
    picture(folder / "obj_valid_data/b.png")
    write(folder / "obj.names", names)
    write(folder / "train.txt", "data/obj_train_data/a.jpg\n")
    write(folder / "valid.txt", "data/obj_valid_data/b.png\n")
    content = "classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    write(folder / "obj.data", content)
    return folder


def test_darknet_names_lists_and_classes_in_a_file_of_its_own(tmp_path: Path) -> None:
    darknet(tmp_path)
    assert parts(tmp_path) == parts(tmp_path / "obj.data") == {"train": ["a.jpg"], "val": ["b.png"]}
    table = read(tmp_path)
    assert table.class_names == ("cat", "dog", "bird")
    assert table.boxes.tolist() == [[75, 25, 125, 75]]
    write(tmp_path / "obj.data", "train = data/nowhere.txt\nnames = data/obj.names\n")
    with pytest.raises(UserError, match=r"'.*obj\.data': 'train' is 'data/nowhere\.txt', which is nowhere"):
        FORMAT.find(tmp_path)
    write(tmp_path / "obj.data", "something else\n")
    assert FORMAT.find(tmp_path / "obj.data") == []


@pytest.mark.parametrize("place", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_folders_without_a_description_need_names_only(tmp_path: Path, place: str) -> None:
    pair(tmp_path, "", "a")
    write(tmp_path / place, "cat\ndog\n")
    (source,) = FORMAT.find(tmp_path)
    assert source == Source("yolo", tmp_path / "labels", tmp_path / "images", "", None, tmp_path / place)
    table = FORMAT.read(source, "auto")
    assert (table.class_names, table.file_names.tolist(), len(table.boxes)) == (("cat", "dog"), ["a.jpg"], 1)


def test_folders_of_images_and_labels_may_be_divided_within_or_without(tmp_path: Path) -> None:
    within, without = tmp_path / "within", tmp_path / "without"
    for folder in (within, without):
        write(folder / "classes.txt", "cat\n")
    pair(within, "train2017", "a")
    pair(within, "val2017/inner", "b")
    pair(without / "train", "", "a")
    pair(without / "valid", "", "b")
    assert parts(within) == {"train": ["a.jpg"], "val": ["inner/b.jpg"]}
    assert parts(without) == {"train": ["a.jpg"], "val": ["b.jpg"]}
    assert [len(read(folder, "val").boxes) for folder in (within, without)] == [1, 1]


def test_folders_may_be_divided_by_lists(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        pair(tmp_path, "", name)
    write(tmp_path / "classes.txt", "cat\n")
    write(tmp_path / "train.txt", "images/a.jpg\nimages/b.jpg\n")
    write(tmp_path / "val.txt", "./images/c.jpg\n")
    assert parts(tmp_path) == {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"]}
    assert len(read(tmp_path).boxes) == 2
    assert caplog.text == ""


@pytest.mark.parametrize(("inner", "part"), [("", ""), ("train", "train"), ("valid", "val")])
@pytest.mark.parametrize("classes", ["classes.txt", "_darknet.labels"])
def test_labels_may_lie_beside_their_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, inner: str, part: str, classes: str
) -> None:
    picture(tmp_path / inner / "a.jpg")
    write(tmp_path / inner / "a.txt", ROW)
    write(tmp_path / inner / classes, "cat\n")
    assert parts(tmp_path) == {part: ["a.jpg"]}
    assert read(tmp_path, part).boxes.tolist() == [[75, 25, 125, 75]]
    assert caplog.text == ""


def test_labels_beside_images_although_these_lie_in_a_folder_of_that_name(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "images/a.txt", ROW)
    write(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    assert len(read(tmp_path).boxes) == 1


def test_the_last_folder_called_images_counts(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "my set"
    standard(folder)
    assert len(read(folder).boxes) == 1


def test_linked_images_keep_their_labels(tmp_path: Path) -> None:
    standard(tmp_path / "real")
    (tmp_path / "images").symlink_to(tmp_path / "real/images")
    write(tmp_path / "labels/train/a.txt", "1 0.5 0.5 0.5 0.5")
    write(tmp_path / "data.yaml", NAMES + FOLDERS)
    assert read(tmp_path).labels.tolist() == [1]


def test_a_folder_of_labels_finds_its_images_and_names(tmp_path: Path) -> None:
    standard(tmp_path)
    (source,) = FORMAT.find(tmp_path / "labels/train")
    table = FORMAT.read(source, "auto")
    assert (source.images, table.class_names) == (tmp_path / "images/train", ("cat", "dog", "bird"))
    assert len(table.boxes) == 1


def test_what_is_no_yolo_set_is_not_found(tmp_path: Path) -> None:
    for name in ("kitti/images", "kitti/labels", "coco/images", "coco/labels", "notes", "empty"):
        (tmp_path / name).mkdir(parents=True)
    write(
        tmp_path / "kitti/labels/a.txt",
        "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57",
    )
    write(tmp_path / "coco/labels/a.json", "{}")
    write(tmp_path / "notes/a.txt", ROW)
    picture(tmp_path / "notes/a.jpg")
    for inner in tmp_path.iterdir():
        assert FORMAT.find(inner) == [], inner


def test_a_set_without_names_of_classes_says_where_to_write_them(tmp_path: Path) -> None:
    pair(tmp_path, "", "a")
    (source,) = FORMAT.find(tmp_path)
    with pytest.raises(UserError, match=rf"write them into '{tmp_path}/classes\.txt', one a line, or write a data"):
        FORMAT.read(source, "auto")
    write(tmp_path / "classes.txt", "cat\n\ndog\n")
    (source,) = FORMAT.find(tmp_path)
    with pytest.raises(UserError, match=r"classes\.txt', line 2 is empty"):
        FORMAT.read(source, "auto")
    write(tmp_path / "classes.txt", "\n")
    with pytest.raises(UserError, match=r"classes\.txt', line 1 is empty"):
        FORMAT.read(source, "auto")


def test_two_folders_of_the_same_part_are_not_guessed_at(tmp_path: Path) -> None:
    pair(tmp_path, "train2014", "a")
    pair(tmp_path, "train2017", "b")
    with pytest.raises(UserError, match=r"are both the part 'train' of .*: write a data\.yaml that lists them both"):
        FORMAT.find(tmp_path)


def test_a_part_without_images_and_images_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    standard(tmp_path)
    source = source_of(tmp_path)
    (tmp_path / "images/train/a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"the image '.*images/train/a\.jpg' cannot be read \(cannot identify"):
        FORMAT.read(source, "auto")
    (tmp_path / "images/train/a.jpg").unlink()
    with pytest.raises(UserError, match=r"'.*images/train' holds no image: correct '.*data\.yaml'"):
        FORMAT.read(source, "auto")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    standard(tmp_path)
    write(tmp_path / "images/train/._a.jpg", "left by another system")
    write(tmp_path / "images/train/__MACOSX/x.jpg", "left by another system")
    write(tmp_path / "images/train/.thumbnails/a.jpg", "no image")
    assert parts(tmp_path)["train"] == ["a.jpg"]


def lists_of(folder: Path) -> Path:
    return of_lines(folder, ["images/train/a.jpg"])


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a label is edited": lambda folder: write(folder / "labels/train/a.txt", "1 0.5 0.5 0.25 0.5"),
    "a label is edited to the same length": lambda folder: write(
        folder / "labels/train/a.txt", ROW.replace("0 ", "1 ", 1)
    ),
    "a label is added": lambda folder: write(folder / "labels/train/b.txt", ROW),
    "a label is removed": lambda folder: (folder / "labels/train/a.txt").unlink(),
    "an image is added": lambda folder: picture(folder / "images/train/b.jpg"),
    "an image is added below": lambda folder: picture(folder / "images/train/inner/b.jpg"),
    "an image is renamed": lambda folder: (folder / "images/train/a.jpg").rename(folder / "images/train/b.jpg"),
    "the description is edited": lambda folder: write(folder / "data.yaml", f"names: [x, y, z]\n{FOLDERS}"),
}


@pytest.mark.parametrize("exact", [1, 20_000])
@pytest.mark.parametrize("change", CHANGES)
def test_the_state_changes_with_labels_and_the_list_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, exact: int
) -> None:
    for name in ("EXACT", "SAMPLED"):
        monkeypatch.setattr(folder_state, name, exact)
    monkeypatch.setattr(yolo_images, "EXACT", exact)
    standard(tmp_path)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    before = FORMAT.state(source_of(tmp_path))
    assert json.loads(json.dumps(before)) == before == FORMAT.state(source_of(tmp_path))
    CHANGES[change](tmp_path)
    assert FORMAT.state(source_of(tmp_path)) != before


@pytest.mark.parametrize("line", ["images/train/a.jpg\nimages/train/unlisted.jpg", "images/train/unlisted.jpg"])
def test_the_state_changes_with_a_list_and_with_the_names_of_classes(tmp_path: Path, line: str) -> None:
    source = source_of(of_lines(tmp_path, ["images/train/a.jpg"]))
    before = FORMAT.state(source)
    write(tmp_path / "lists/train.txt", line)
    assert FORMAT.state(source) != before
    (tmp_path / "data.yaml").unlink()
    write(tmp_path / "classes.txt", "cat\n")
    source = source_of(tmp_path)
    before = FORMAT.state(source)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert FORMAT.state(source) != before


def test_the_state_stays_where_nothing_that_counts_changes(tmp_path: Path) -> None:
    source = source_of(standard(tmp_path))
    before = FORMAT.state(source)
    write(tmp_path / "labels/train.cache", "of another program")
    write(tmp_path / "labels/val/b.txt", "1 0.5 0.5 0.5 0.5")
    write(tmp_path / "images/train/notes.doc")
    assert FORMAT.state(source) == before


def test_of_many_label_files_those_between_the_sampled_ones_are_known_by_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EXACT", "SAMPLED"):
        monkeypatch.setattr(folder_state, name, 10)
    standard(tmp_path)
    for number in range(99):
        pair(tmp_path, "train", f"{number}")
    source = source_of(tmp_path)
    before = FORMAT.state(source)
    (tmp_path / "new").write_text(ROW.replace("0 ", "2 ", 1))
    (tmp_path / "new").rename(tmp_path / "labels/train/50.txt")
    replaced = FORMAT.state(source)
    assert replaced != before
    for path in (tmp_path / "labels/train").iterdir():
        path.write_text("1 0.5 0.5 0.5 0.5")
    assert FORMAT.state(source) != replaced


def test_labels_may_have_a_suffix_in_upper_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (standard(tmp_path) / "labels/train/a.txt").rename(tmp_path / "labels/train/a.TXT")
    state = FORMAT.state(source_of(tmp_path))
    assert len(read(tmp_path).boxes) == 1
    assert "have no image" not in caplog.text
    write(tmp_path / "labels/train/a.TXT", ROW + ROW)
    assert FORMAT.state(source_of(tmp_path)) != state


def test_the_state_changes_with_images_that_are_resized_in_place(tmp_path: Path) -> None:
    source = source_of(standard(tmp_path))
    state = FORMAT.state(source)
    picture(tmp_path / "images/train/a.jpg", (50, 70))
    assert FORMAT.state(source) != state


def test_a_folder_of_images_or_a_part_may_be_given_by_itself(tmp_path: Path) -> None:
    roboflow(tmp_path)
    for path in (tmp_path / "train", tmp_path / "train/images", tmp_path / "train/labels"):
        table = read(path, "")
        assert (len(table), len(table.boxes), table.class_names) == (1, 1, ("cat", "dog", "bird")), path
