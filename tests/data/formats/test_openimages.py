from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats.openimages import FORMAT
from rtdetrv2_train.errors import UserError

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
TABLE = "train-annotations-bbox.csv"
CLASSES = "/m/0,Cat\n/m/1,Dog\n/m/2,Bird\n"


def line(image: str, label: str, sides: str = "0.1,0.4,0.25,0.75", confidence: str = "1", group: str = "0") -> str:
    return f"{image},xclick,{label},{confidence},{sides},0,0,{group},0,0"


def picture(path: Path, width: int = 100, height: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height)).save(path)


def write(root: Path, *lines: str, name: str = TABLE, header: str = HEADER, classes: str = CLASSES) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *lines)) + "\n")
    if classes:
        (root / "class-descriptions-boxable.csv").write_text(classes)
    return path


def read(path: Path) -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, "auto")


def test_shares_become_pixels_of_each_image(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg", 100, 80)
    picture(tmp_path / "train" / "b.jpg", 640, 333)
    write(tmp_path, line("a", "/m/1"), line("b", "/m/0", "0.015625,0.9,0.1,0.5"))
    table = read(tmp_path)
    assert np.abs(table.raw_boxes - [[10, 20, 30, 40], [10, 33.3, 566, 133.2]]).max() < 1e-3
    assert [table.class_names[label] for label in table.raw_labels] == ["Dog", "Cat"]


def test_classes_are_all_that_can_have_boxes_in_their_order(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1"))
    table = read(tmp_path)
    assert (table.category_ids, table.class_names) == ((1, 2, 3), ("Cat", "Dog", "Bird"))


def test_of_a_longer_list_of_classes_those_count_that_occur(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1"), line("a", "/m/9"), classes="")
    (tmp_path / "oidv6-class-descriptions.csv").write_text(f"\ufeffLabelName,DisplayName\n{CLASSES}/m/9,Zebra, plain\n")
    assert read(tmp_path).class_names == ("Dog", "Zebra")


def test_without_a_list_labels_are_the_names(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1"), line("a", "/m/0"), classes="")
    assert read(tmp_path).class_names == ("/m/0", "/m/1")


def test_a_column_of_names_counts_before_labels(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a b.jpg")
    header = ",ImageID,LabelName,XMin,XMax,YMin,YMax,ClassName"
    write(
        tmp_path,
        "0,./set/a b.jpg,same,0.1,0.4,0.25,0.75,can",
        "1,./set/a b.jpg,same,0.1,0.4,0.25,0.75,box",
        name="sub-train-annotations-bbox.csv",
        header=header,
    )
    table = read(tmp_path)
    assert (table.class_names, table.raw_labels.tolist()) == (("box", "can"), [1, 0])


def test_groups_are_crowd_regions(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1", group="1"), line("a", "/m/1"), line("a", "/m/1", group="-1"))
    assert read(tmp_path).raw_crowd.tolist() == [True, False, False]


def test_lines_that_say_that_there_is_no_such_object_are_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1", confidence="0"), line("a", "/m/0", confidence="0.7"))
    table = read(tmp_path)
    assert table.raw_labels.tolist() == [0]


def test_images_that_are_not_on_disk_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    picture(tmp_path / "train" / "b.jpg")
    picture(tmp_path / "train" / "unlisted.jpg")
    write(tmp_path, line("a", "/m/1"), line("b", "/m/1"), line("a", "/m/0"), line("c", "/m/0"))
    table = read(tmp_path)
    assert table.file_names.tolist() == ["b.jpg"]
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 3 images of ")


def test_without_any_image_on_disk_the_folder_is_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "b.jpg")
    write(tmp_path, line("a", "/m/1"))
    with pytest.raises(UserError, match=r"none of the 1 images of .* is in '.*train': put images there"):
        read(tmp_path)


def test_a_table_without_lines_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match="has no line of a box"):
        read(tmp_path)


def test_parts_are_found_with_the_folders_of_their_images(tmp_path: Path) -> None:
    for part in ("train", "validation", "test"):
        picture(tmp_path / "images" / part / "a.jpg")
        write(tmp_path / "annotations", line("a", "/m/1"), name=f"{part}-annotations-bbox.csv")
    found = {source.part: source for source in FORMAT.find(tmp_path)}
    assert {part: source.images.name for part, source in found.items()} == {
        "train": "train",
        "val": "validation",
        "test": "test",
    }
    assert {source.classes for source in found.values()} == {tmp_path / "annotations/class-descriptions-boxable.csv"}


def test_a_folder_for_each_part_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "data" / "a.jpg")
    write(tmp_path / "train", line("a", "/m/1"), name="labels/detections.csv", classes="")
    (source,) = FORMAT.find(tmp_path)
    assert source.part == "train"
    assert (source.images / str(FORMAT.read(source, "auto").file_names[0])).samefile(
        tmp_path / "train" / "data" / "a.jpg"
    )


def test_two_tables_of_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path, line("a", "/m/1"))
    write(tmp_path, line("a", "/m/1"), name=f"oidv6-{TABLE}")
    with pytest.raises(UserError, match=r"has 2 OpenImages tables for train: .*data\.train\.annotations="):
        FORMAT.find(tmp_path)


def test_columns_of_newer_versions_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    path = write(tmp_path, f"{line('a', '/m/1')},0.1,0.2", header=f"{HEADER},XClick1X,XClick1Y")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read(tmp_path).boxes) == 1


def test_corners_in_the_other_order_are_swapped(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1", "0.4,0.1,0.75,0.25"))
    assert np.abs(read(tmp_path).raw_boxes - [[10, 20, 30, 40]]).max() < 1e-3


@pytest.mark.parametrize("sides", ["nan,0.4,0.2,0.3", "1,1600,6,8", "a,0.4,0.2,0.3"])
def test_numbers_that_are_no_shares_are_a_problem(tmp_path: Path, sides: str) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1", sides), line("a", "/m/1"))
    table = read(tmp_path)
    (problem,) = table.problems
    assert problem.file_name == "a.jpg"
    assert problem.reason.startswith("line 2: XMin ")
    assert len(table.boxes) == 1


def test_a_label_that_is_not_in_the_list_is_a_problem(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/77"), line("a", "/m/1"))
    assert [problem.reason for problem in read(tmp_path).problems] == ["unknown label '/m/77'"]


def test_a_line_that_is_cut_short_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1"), "a,xclick,/m/1,1,0.1")
    with pytest.raises(UserError, match=r"train-annotations-bbox\.csv', line 3: it has 5 values.*cut short"):
        read(tmp_path)


def test_lines_without_values_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Spreadsheets leave lines of commas."""
    picture(tmp_path / "train" / "a.jpg")
    commas = "," * HEADER.count(",")
    lines = (commas, line("a", "/m/1"), "", ", ,", f"{commas}")
    write(tmp_path, *lines, classes=f"{CLASSES},\n\n")
    table = read(tmp_path)
    assert (len(table), len(table.boxes), table.class_names) == (1, 1, ("Cat", "Dog", "Bird"))
    assert f"{TABLE}': 3 lines have commas and no values, and are left out" in caplog.text
    assert "descriptions-boxable.csv': 1 lines have commas and no values" in caplog.text
    assert len(caplog.records) == 2
    write(tmp_path, commas, line("a", "/m/1"), "b,xclick")
    with pytest.raises(UserError, match="line 4: it has 2 values"):
        read(tmp_path)


def test_a_broken_list_of_classes_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.jpg")
    write(tmp_path, line("a", "/m/1"), classes="/m/0,Cat\n/m/1")
    with pytest.raises(UserError, match=r"class-descriptions-boxable\.csv', line 2: '/m/1' is not a label"):
        read(tmp_path)


def test_other_tables_are_not_taken_for_openimages(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,xmin,ymin,xmax,ymax,label\n")
    (tmp_path / "train-annotations-human-imagelabels.csv").write_text("ImageID,Source,LabelName,Confidence\n")
    assert FORMAT.find(tmp_path) == []
