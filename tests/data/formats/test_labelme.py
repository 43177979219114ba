from __future__ import annotations

import base64
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.labelme import FORMAT
from rtdetrv2_train.data.images.decode import Exif
from rtdetrv2_train.errors import UserError


def picture(path: Path, width: int = 100, height: int = 80, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (width, height)).save(path, exif=exif)
    return path


def shape(label: Any, points: Any, kind: str | None = "rectangle", **changes: Any) -> dict[str, Any]:
    told = {"label": label, "points": points, "group_id": None, "flags": {}, **changes}
    return told if kind is None else {**told, "shape_type": kind}


def labels(path: Path, *shapes: dict[str, Any], **changes: Any) -> Path:
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": 80,
        "imageWidth": 100,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))
    return path


def read(path: Path, exif: Exif = "auto") -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, exif)


def boxes(table: AnnotationTable) -> list[list[float]]:
    return [[round(side, 6) for side in box] for box in table.raw_boxes.tolist()]


def test_every_outline_becomes_the_box_around_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    mask = io.BytesIO()
    Image.new("1", (11, 6)).save(mask, "PNG")
    labels(
        tmp_path / "a.json",
        shape("cat", [[30.5, 40], [10, 20.25]]),
        shape("cat", [[10, 10], [30, 12], [20, 50]], "polygon"),
        shape("cat", [[1, 2], [5, 9], [7, 3]], None),
        shape("cat", [[50, 40], [53, 44]], "circle"),
        shape("cat", [[20, 30], [30, 35]], "mask", mask=base64.b64encode(mask.getvalue()).decode()),
    )
    assert boxes(read(tmp_path)) == [
        [10, 20.25, 20.5, 19.75],
        [10, 10, 20, 40],
        [1, 2, 6, 7],
        [45, 35, 10, 10],
        [20, 30, 11, 6],
    ]


def test_shapes_without_area_and_those_of_no_class_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(tmp_path / "a.jpg")
    labels(
        tmp_path / "a.json",
        shape("cat", [[1, 1]], "point"),
        shape("cat", [[1, 1], [5, 5]], "line"),
        shape("__ignore__", [[1, 1], [5, 5]]),
        shape("cat", [[1, 1], [5, 5]]),
    )
    table = read(tmp_path)
    assert (boxes(table), table.problems, table.class_names) == ([[1, 1, 4, 4]], (), ("cat",))
    assert "1 of point, 1 of line, 1 of __ignore__" in caplog.text


def test_polygons_of_one_group_and_label_are_one_object(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    left, right = [[0, 0], [10, 0], [5, 10]], [[50, 20], [60, 20], [55, 40]]
    labels(
        tmp_path / "a.json",
        shape("sofa", left, "polygon", group_id=0),
        shape("sofa", right, "polygon", group_id=0),
        shape("cat", left, "polygon", group_id=0),
    )
    assert boxes(read(tmp_path)) == [[0, 0, 60, 40], [0, 0, 10, 10]]


def test_classes_are_numbered_from_one_in_alphabetical_order(tmp_path: Path) -> None:
    for name, label in (("a", "dog"), ("b", "ant")):
        picture(tmp_path / f"{name}.jpg")
        labels(tmp_path / f"{name}.json", shape(label, [[1, 1], [5, 5]]))
    table = read(tmp_path)
    assert (table.category_ids, table.class_names) == ((1, 2), ("ant", "dog"))
    assert table.raw_labels.tolist() == [1, 0]
    assert table.image_ids.tolist() == [1, 2]


def test_folders_of_parts_become_parts(tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / part / "a.jpg")
        labels(tmp_path / part / "a.json", shape("cat", [[1, 1], [5, 5]]))
    found = {source.part: source for source in FORMAT.find(tmp_path)}
    assert set(found) == {"train", "val"}
    assert found["val"].annotations == tmp_path / "val"
    assert FORMAT.read(found["val"], "auto").file_names.tolist() == ["val/a.jpg"]


@pytest.mark.parametrize("told", ["..\\images\\a.jpg", "../images/a.jpg", "a.jpg", "C:\\Users\\me\\a.jpg"])
def test_images_are_found_from_a_folder_of_labels(tmp_path: Path, told: str) -> None:
    picture(tmp_path / "images" / "a.jpg")
    labels(tmp_path / "annotations" / "a.json", shape("cat", [[1, 1], [5, 5]]), imagePath=told, imageHeight=None)
    table = read(tmp_path)
    assert table.size(0) == (80, 100)
    assert table.file_names.tolist() in (["images/a.jpg"], ["a.jpg"])  # the second is left to the search by name


@pytest.mark.parametrize("told", ["old name.jpg", "b.json", None, "other\\b.jpg"])
def test_an_image_beside_a_file_is_its_own_where_the_named_one_is_missing(tmp_path: Path, told: Any) -> None:
    picture(tmp_path / "b.JPG")
    labels(tmp_path / "b.json", shape("cat", [[1, 1], [5, 5]]), imagePath=told)
    assert read(tmp_path).file_names.tolist() == ["b.JPG"]


def test_a_copied_file_that_names_the_old_image_is_about_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg")
        labels(tmp_path / f"{name}.json", shape("cat", [[1, 1], [5, 5]]), imagePath="a.jpg")
    assert read(tmp_path).file_names.tolist() == ["a.jpg", "b.jpg"]


def test_two_files_about_one_image_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    for name in ("a", "copy of a"):
        labels(tmp_path / f"{name}.json", shape("cat", [[1, 1], [5, 5]]), imagePath="a.jpg")
    with pytest.raises(UserError, match=r"'.*a\.json' and '.*copy of a\.json' are both about the image 'a\.jpg'"):
        read(tmp_path)


def test_sizes_that_are_missing_are_those_of_the_image_turned_as_exif_says(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 100, 80, orientation=6)
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]), imageHeight=None, imageWidth=None)
    assert read(tmp_path).size(0) == (100, 80)


def test_told_sizes_become_those_of_the_turned_image_where_exif_is_applied(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 100, 80, orientation=6)
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]))
    assert [read(tmp_path, exif).size(0) for exif in ("auto", "apply")] == [(80, 100), (100, 80)]


def test_a_missing_image_whose_size_is_not_told_is_named(tmp_path: Path) -> None:
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]), imageHeight=None)
    with pytest.raises(UserError, match=r"1 of 1 images of '.*' are not in '.*', the first is 'a\.jpg'"):
        read(tmp_path)


def test_a_missing_image_whose_size_is_told_keeps_its_name(tmp_path: Path) -> None:
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]), imagePath="sub\\c.jpg")
    assert read(tmp_path).file_names.tolist() == ["c.jpg"]


def test_a_byte_order_mark_and_the_copy_of_the_image_are_passed_over(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    path = labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]), imageData="A" * 200_000)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert boxes(read(tmp_path)) == [[1, 1, 4, 4]]


def test_a_file_that_is_cut_short_is_named_with_the_line(tmp_path: Path) -> None:
    path = labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]))
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2)[:120])
    with pytest.raises(UserError, match=r"'.*a\.json' is not JSON \(.*line \d+ column \d+.*\): mend it"):
        read(tmp_path)


def test_json_of_something_else_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.jpg")
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]))
    (tmp_path / "settings.json").write_text('{"colour": 3}')
    assert len(read(tmp_path)) == 1
    assert "1 JSON files are not of LabelMe's" in caplog.text


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (shape("cat", [[1, float("nan")], [5, 5]]), r"point \[1, nan\] is not two finite numbers"),
        (shape("cat", [[1, 1]]), "a rectangle needs 2 points, and has 1"),
        (shape("cat", [[1, 1], [2, 2]], "polygon"), "a polygon needs 3 points, and has 2"),
        (shape("cat", [[1, 1], [2, 2]], "star"), "its type 'star' is not known"),
        (shape("", [[1, 1], [2, 2]]), "label '' of shape 0 is no name"),
        (shape("cat", None), "a rectangle needs 2 points, and has 0"),
    ],
)
def test_a_broken_shape_is_a_problem_of_its_image(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    picture(tmp_path / "a.jpg")
    labels(tmp_path / "a.json", bad, shape("cat", [[1, 1], [5, 5]]))
    table = read(tmp_path)
    (problem,) = table.problems
    assert problem.file_name == "a.jpg"
    assert reason.replace("\\", "") in problem.reason
    assert boxes(table) == [[1, 1, 4, 4]]


def test_other_json_is_not_taken_for_labelme(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    coco = {"images": [], "annotations": [{"shapes": 1}], "categories": []}
    (tmp_path / "instances.json").write_text(json.dumps(coco))
    (tmp_path / "list.json").write_text('[{"shapes": []}]')
    (tmp_path / "a.xml").write_text("<annotation/>")
    assert FORMAT.find(tmp_path) == []
    assert FORMAT.find(tmp_path / "instances.json") == []


def test_one_file_alone_is_a_set(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    path = labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]))
    assert len(read(path)) == 1


def test_the_state_changes_with_labels_and_images(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [5, 5]]))
    (source,) = FORMAT.find(tmp_path)
    before = FORMAT.state(source)
    picture(tmp_path / "b.jpg")
    with_image = FORMAT.state(source)
    labels(tmp_path / "a.json", shape("cat", [[1, 1], [55, 55]]))
    assert len({json.dumps(state) for state in (before, with_image, FORMAT.state(source))}) == 3


def test_the_state_changes_with_a_file_whose_suffix_is_in_upper_case(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    labels(tmp_path / "a.JSON", shape("cat", [[1, 2], [30, 40]]))
    (source,) = FORMAT.find(tmp_path)
    state = FORMAT.state(source)
    labels(tmp_path / "a.JSON", shape("horse", [[1, 2], [30, 40]]))
    assert FORMAT.state(source) != state
