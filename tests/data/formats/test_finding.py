"""What lies in a folder is found out: format, parts, labels, images."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rtdetrv2_train.data.formats.coco_layouts import is_coco_file
from rtdetrv2_train.data.formats.finding import found_sources, source_of
from rtdetrv2_train.data.formats.source import part_of
from rtdetrv2_train.data.index import load_source
from rtdetrv2_train.errors import UserError


def write_coco(
    annotations: Path, images: Path, names: tuple[str, ...] = ("a.jpg", "b.jpg"), entry: dict[str, Any] | None = None
) -> None:
    """A COCO file, and files that stand for its images."""
    listed = [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names)]
    box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content = {
        "images": [entry] if entry else listed,
        "annotations": [box],
        "categories": [{"id": 1, "name": "cat"}],
    }
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(content))
    for name in names:
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def places(root: Path) -> dict[str, tuple[str, str]]:
    """Labels and images of each part that is found."""
    return {
        source.part: (source.annotations.relative_to(root).as_posix(), source.images.relative_to(root).as_posix())
        for source in found_sources(root)
    }


def test_the_layout_of_coco_2017_is_found(tmp_path: Path) -> None:
    for part in ("train2017", "val2017"):
        write_coco(tmp_path / f"annotations/instances_{part}.json", tmp_path / part, (f"{part}.jpg",))
        for other in ("captions", "person_keypoints"):
            write_coco(tmp_path / f"annotations/{other}_{part}.json", tmp_path / part, (f"{part}.jpg",))
    assert places(tmp_path) == {
        "train": ("annotations/instances_train2017.json", "train2017"),
        "val": ("annotations/instances_val2017.json", "val2017"),
    }


def test_the_layout_of_roboflow_is_found(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        write_coco(tmp_path / part / "_annotations.coco.json", tmp_path / part, (f"{part}_jpg.rf.0a1b.jpg",))
    assert places(tmp_path) == {
        "train": ("train/_annotations.coco.json", "train"),
        "val": ("valid/_annotations.coco.json", "valid"),
        "test": ("test/_annotations.coco.json", "test"),
    }


@pytest.mark.parametrize("images", ["images", "images/default", "."])
def test_the_layout_of_cvat_is_found(tmp_path: Path, images: str) -> None:
    write_coco(tmp_path / "annotations/instances_default.json", tmp_path / images)
    assert places(tmp_path) == {"": ("annotations/instances_default.json", images)}


def test_the_layout_of_label_studio_is_found(tmp_path: Path) -> None:
    write_coco(tmp_path / "result.json", tmp_path, ("images/0a1b-x.jpg",))
    assert places(tmp_path) == {"": ("result.json", ".")}


def test_labels_beside_a_folder_of_all_images_are_found(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_coco(tmp_path / f"annotations/instances_{part}.json", tmp_path / "JPEGImages", (f"{part}.jpg",))
    assert places(tmp_path) == {
        part: (f"annotations/instances_{part}.json", "JPEGImages") for part in ("train", "test")
    }


def test_names_that_are_urls_or_hold_folders_lead_to_the_images(tmp_path: Path) -> None:
    url = {"id": 0, "coco_url": "http://images.cocodataset.org/train2017/1.jpg", "height": 30, "width": 40}
    write_coco(tmp_path / "lvis_v1_train.json", tmp_path / "train2017", ("1.jpg",), url)
    write_coco(tmp_path / "lvis_v1_val.json", tmp_path / "images", ("v2/patch1/7.jpg",))
    assert places(tmp_path) == {"train": ("lvis_v1_train.json", "."), "val": ("lvis_v1_val.json", "images")}


def test_several_files_that_may_be_meant_are_named(tmp_path: Path) -> None:
    for name in ("first.json", "second.json"):
        write_coco(tmp_path / name, tmp_path)
    with pytest.raises(UserError, match=r"has 2 COCO files: 'first.json', 'second.json'; choose with data.train.anno"):
        found_sources(tmp_path)


def test_a_file_of_everything_beside_those_of_the_parts_is_left_alone(tmp_path: Path) -> None:
    for name in ("all.json", "train.json", "val.json"):
        write_coco(tmp_path / name, tmp_path)
    assert set(places(tmp_path)) == {"train", "val"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"images": [], "annotations": [], "categories": []}', True),
        ('\ufeff {"annotations": [], "images": [], "categories": [] }', True),
        ('{"images": [], "annotations": []}', False),  # captions
        ('{"shapes": [], "imagePath": "a.jpg"}', False),  # LabelMe
        ('[{"images": [], "categories": []}]', False),
        ("", False),
    ],
)
def test_coco_files_are_told_from_other_json(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert is_coco_file(path) is expected


def test_categories_far_down_in_a_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    long = {"images": [{"id": i, "file_name": "x" * 50} for i in range(3000)], "categories": [{"id": 1, "name": "cat"}]}
    path.write_text(json.dumps({**long, "licenses": ["y" * 200_000]}))
    assert is_coco_file(path)


def test_what_was_found_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("val", "train"):
        write_coco(tmp_path / f"{part}.json", tmp_path / part)
    with caplog.at_level(logging.INFO):
        found_sources(tmp_path)
    assert caplog.messages == [f"'{tmp_path}' is in COCO format: train in 'train.json', val in 'val.json'"]


def test_a_folder_without_a_known_format_says_what_it_holds(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.bin").touch()
    with pytest.raises(UserError, match=r"holds no COCO.* set: there is 'a.bin', .* and 2 more; datasets/README.md"):
        found_sources(tmp_path)


def test_an_unknown_format_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.format is 'cocoo': did you mean 'coco'\?"):
        found_sources(tmp_path, "cocoo")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing of that name"):
        found_sources(tmp_path / "missing")


def test_labels_and_images_may_be_given(tmp_path: Path) -> None:
    write_coco(tmp_path / "labels.json", tmp_path / "elsewhere")
    table = load_source(source_of(tmp_path / "labels.json", tmp_path / "elsewhere"))
    assert table.path(1) == tmp_path / "elsewhere/b.jpg"
    assert table.boxes.tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("instances_train2017.json", "train"),
        ("valid", "val"),
        ("VisDrone2019-DET-test-dev", "test"),
        ("trainval.txt", "train"),
        ("test.json", "test"),
        ("instances_default.json", ""),
        ("constrain.json", ""),
        ("Validation_Set.csv", "val"),
    ],
)
def test_parts_are_told_by_the_words_of_a_name(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize("above", ["set", "set/set", "download/set"])
def test_a_set_in_the_only_folder_is_found(tmp_path: Path, above: str) -> None:
    write_coco(tmp_path / above / "train.json", tmp_path / above / "train")
    (tmp_path / "__MACOSX" / above).mkdir(parents=True)
    (tmp_path / "__MACOSX" / above / "._train.json").write_bytes(b"\0")
    (tmp_path / ".DS_Store").touch()
    assert places(tmp_path) == {"train": (f"{above}/train.json", f"{above}/train")}


def test_a_folder_of_several_sets_is_said_to_be_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_coco(tmp_path / name / "labels.json", tmp_path / name / "images")
    (tmp_path / "0").mkdir()
    with pytest.raises(UserError, match=r"is no data set, but has sets in it: give the path of one, such as '.*/a'"):
        found_sources(tmp_path)


def test_labels_of_yolo_without_names_are_said_to_lack_them(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(UserError, match=r"labels of YOLO, write the names of the classes to classes.txt there"):
        found_sources(tmp_path)


def test_a_coco_file_may_have_a_suffix_in_upper_case(tmp_path: Path) -> None:
    write_coco(tmp_path / "LABELS.JSON", tmp_path / "images")
    assert places(tmp_path) == {"": ("LABELS.JSON", "images")}


def test_notes_of_label_studio_beside_a_yolo_set_are_no_coco_file(tmp_path: Path) -> None:
    notes = {"categories": [{"id": 0, "name": "cat"}], "info": {"contributor": "Label Studio"}}
    (tmp_path / "notes.json").write_text(json.dumps(notes, indent=2))
    (tmp_path / "classes.txt").write_text("cat\n")
    for name, text in (("images/a.jpg", ""), ("labels/a.txt", "0 0.5 0.5 0.1 0.1")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    assert [source.format for source in found_sources(tmp_path)] == ["yolo"]


def test_images_that_are_given_count_more_than_those_of_a_data_yaml(tmp_path: Path) -> None:
    for part, rows in (("train", "0 0.5 0.5 0.1 0.1"), ("val", "1 0.5 0.5 0.1 0.1")):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "labels" / part).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/{part}/of_{part}.png")
        (tmp_path / f"labels/{part}/of_{part}.txt").write_text(rows)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    table = load_source(source_of(tmp_path / "data.yaml", tmp_path / "images/val"))
    assert (table.file_names.tolist(), table.raw_labels.tolist()) == (["of_val.png"], [1])


def visdrone_with_yolo(root: Path, parts: tuple[str, ...] = ("train", "val")) -> None:
    """VisDrone as Ultralytics' script leaves it: with labels of YOLO beside, and no names of classes."""
    for part in parts:
        folder = root / f"VisDrone2019-DET-{part}"
        for name, text in (("annotations", "1,2,3,4,1,4,0,0\n"), ("labels", "3 0.5 0.5 0.1 0.1\n"), ("images", "")):
            (folder / name).mkdir(parents=True)
            (folder / name / ("a.txt" if text else "a.jpg")).write_text(text)


def test_yolo_labels_without_names_give_way_to_another_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    visdrone_with_yolo(tmp_path)
    assert [(source.format, source.part) for source in found_sources(tmp_path)] == [
        ("visdrone", "train"),
        ("visdrone", "val"),
    ]
    said = "labels in 'VisDrone2019-DET-train/labels', so those in VisDrone format count"
    assert said in caplog.text
    train = tmp_path / "VisDrone2019-DET-train"
    assert [source.format for source in found_sources(train)] == ["visdrone"]
    assert source_of(train, train / "images").format == "visdrone"
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    assert {source.format for source in found_sources(tmp_path)} == {"yolo"}


def test_where_yolo_labels_without_names_are_wanted_other_formats_are_named(tmp_path: Path) -> None:
    visdrone_with_yolo(tmp_path)
    message = r"classes of '.*train/labels' are nowhere: write them .* in VisDrone format with data\.format=visdrone"
    with pytest.raises(UserError, match=message):
        found_sources(tmp_path, "yolo")
    (tmp_path / "old-val/images").mkdir(parents=True)
    (tmp_path / "old-val/annotations").symlink_to(tmp_path / "VisDrone2019-DET-val/annotations")
    with pytest.raises(UserError, match=message):  # VisDrone itself is not clear
        found_sources(tmp_path)
