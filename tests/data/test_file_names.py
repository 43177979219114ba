from __future__ import annotations

import json
import logging
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.file_names import files_of, with_names_of_files
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.errors import UserError


def load(tmp_path: Path, files: list[str], names: list[str], key: str = "file_name", **size: int) -> AnnotationTable:
    """A set of images that lie as ``files`` and are called ``names``."""
    for file in files:
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / file, "PNG")
    images = [{"id": n, key: name, **(size or {"height": 48, "width": 64})} for n, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    return load_annotations(tmp_path / "set.json", tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images/x.jpg", "x.jpg"),
        ("data/images/deep/x.jpg", "deep/x.jpg"),
        ("x.jpg", "deep/x.jpg"),
        ("deep\\x.jpg", "deep/x.jpg"),
        ("C:\\sets\\images\\x.jpg", "x.jpg"),
        ("D:/sets/images/x.jpg", "x.jpg"),
        ("/mnt/set/images/x.jpg", "x.jpg"),
        ("file:///mnt/set/images/x.jpg", "x.jpg"),
        ("https://host.org/a/images/x.jpg?width=3#top", "x.jpg"),
        ("upload/my%20cat.jpg", "my cat.jpg"),
        ("X.JPG", "x.jpg"),
        ("x.jpg", "x.JPEG"),
        ("x", "x.jpg"),
        ("x.png", "x.webp"),
        (unicodedata.normalize("NFD", "größe.jpg"), unicodedata.normalize("NFC", "größe.jpg")),
        (unicodedata.normalize("NFC", "größe.jpg"), unicodedata.normalize("NFD", "größe.jpg")),
    ],
)
def test_a_name_that_is_not_quite_that_of_a_file_finds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, file: str
) -> None:
    annotations = load(tmp_path, [file, "another.jpg"], [name])
    with caplog.at_level(logging.INFO):
        assert with_names_of_files(annotations, may_lack=False).file_names.tolist() == [file]
    assert f"1 names are not quite those of files: '{annotations.file_names[0]}' is '{file}'" in caplog.text


@pytest.mark.parametrize("names", [["./x.jpg"], ["deep/../x.jpg"]])
def test_a_path_to_the_file_is_left_as_it_is(tmp_path: Path, names: list[str]) -> None:
    annotations = load(tmp_path, ["x.jpg", "deep/y.jpg"], names)
    assert with_names_of_files(annotations, may_lack=False) is annotations


def test_the_longest_common_path_decides(tmp_path: Path) -> None:
    names = [f"images/{folder}1.jpg" for folder in ("a/", "b/", "")]
    annotations = load(tmp_path, ["a/1.jpg", "b/1.jpg", "1.jpg"], names)
    assert with_names_of_files(annotations, may_lack=False).file_names.tolist() == ["a/1.jpg", "b/1.jpg", "1.jpg"]


def test_lvis_has_urls_instead_of_names(tmp_path: Path) -> None:
    urls = [f"http://images.cocodataset.org/{part}/1.jpg" for part in ("train2017", "val2017")]
    annotations = load(tmp_path, ["train2017/1.jpg", "val2017/1.jpg"], urls, key="coco_url")
    found = with_names_of_files(annotations, may_lack=False)
    assert found.file_names.tolist() == ["train2017/1.jpg", "val2017/1.jpg"]


def test_sizes_that_are_missing_are_read_from_the_file_that_is_meant(tmp_path: Path) -> None:
    annotations = load(tmp_path, ["x.jpg"], ["images/x.jpg"], license=1)
    assert annotations.size(0) == (48, 64)


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        (["a/1.jpg", "b/1.jpg"], ["1.jpg"], r"first is '1\.jpg'; it may be 'a/1\.jpg' or 'b/1\.jpg': correct"),
        (["1.jpg"], ["a/1.jpg", "b/1.jpg"], r"2 of 2 .* may be '1\.jpg': correct data\.train\.images"),
        (["a/1.jpg"], ["b/1.jpg"], r"'b/1\.jpg'; that folder holds 'a/1\.jpg': correct"),
        (["1.jpg", "2.jpg"], ["1.jpg", "images/1.jpg"], "1 of 2 .*: put them there, or leave missing images out"),
        (["a/1.jpg"], ["2.jpg", "a/1.jpg"], "1 of 2 .* data.on_bad_image=skip"),
        (["notes.txt"], ["1.jpg"], "that folder holds no image: correct"),
        (["1.txt"], ["1.jpg"], "that folder holds no image: correct"),
        (["img.jpg"], ["img.1"], "that folder holds"),
        (["1.jpg"], ["data:image/png;base64," + 400 * "A"], "that folder holds"),
    ],
)
def test_where_it_is_not_plain_which_file_is_meant_the_cause_is_named(
    tmp_path: Path, files: list[str], names: list[str], message: str
) -> None:
    annotations = load(tmp_path, files, names)
    with pytest.raises(UserError, match=message) as raised:
        with_names_of_files(annotations, may_lack=False)
    assert "\n" not in str(raised.value)
    if f"{len(names)} of {len(names)}" in str(raised.value):
        assert "on_bad_image" not in str(raised.value)
        with pytest.raises(UserError, match="correct data"):
            with_names_of_files(annotations, may_lack=True)


def test_no_file_outside_of_the_folder_is_found(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "secret.png")
    annotations = load(tmp_path, ["x.png"], [str(tmp_path / "secret.png"), "file://" + str(tmp_path / "secret.png")])
    assert all(annotations.path(index).is_relative_to(tmp_path / "images") for index in range(2))
    with pytest.raises(UserError, match="2 of 2 images"):
        with_names_of_files(annotations, may_lack=True)


def test_arrays_and_heic_are_images_too(tmp_path: Path) -> None:
    for name in ("A.npy", "b.heic"):
        (tmp_path / name).touch()
    assert files_of(["a.npy", "b.jpg"], tmp_path) == {"a.npy": "A.npy", "b.jpg": "b.heic"}


def test_hidden_folders_hold_no_images(tmp_path: Path) -> None:
    annotations = load(tmp_path, ["x.jpg", ".trash/y.jpg"], ["x.jpg", "y.jpg"])
    with pytest.raises(UserError, match=r"1 of 2 images .* the first is 'y.jpg'; that folder holds 'x.jpg'"):
        with_names_of_files(annotations, may_lack=False)


@pytest.mark.parametrize("loop", [False, True])
def test_linked_folders_are_searched_too(tmp_path: Path, loop: bool) -> None:
    """As where images lie on another disk; also where a link leads back up."""
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "disk/inner").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "disk/inner" / name)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/linked").symlink_to(tmp_path / "disk")
    if loop:
        (tmp_path / "disk/inner/up").symlink_to(tmp_path / "images")
        (tmp_path / "disk/inner/self").symlink_to(tmp_path / "disk/inner")
    annotations = load(tmp_path, [], ["inner/1.JPG", "2.png"])
    found = with_names_of_files(annotations, may_lack=False)
    assert found.file_names.tolist() == ["linked/inner/1.jpg", "linked/inner/2.jpg"]


def lvis_05(tmp_path: Path, files: list[str]) -> AnnotationTable:
    """LVIS v0.5, whose images have names of COCO 2014 and URLs of COCO 2017."""
    for file in files:
        (tmp_path / "coco" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "coco" / file)
    names = [
        {"file_name": f"COCO_val2014_{number:012}.jpg", "coco_url": f"http://x.org/val2017/{number:012}.jpg"}
        for number in (1, 2)
    ]
    images = [{"id": n, **name, "height": 48, "width": 64} for n, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "coco").mkdir(exist_ok=True)
    (tmp_path / "coco/lvis_v0.5_val.json").write_text(json.dumps(content))
    os.utime(tmp_path / "coco/lvis_v0.5_val.json", ns=(1, 1))
    return load_annotations(tmp_path / "coco/lvis_v0.5_val.json", tmp_path / "coco")


@pytest.mark.parametrize(
    "files",
    [
        ["val2017/000000000001.jpg", "val2017/000000000002.jpg"],
        ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"],
        ["val2014/COCO_val2014_000000000001.jpg", "val2014/COCO_val2014_000000000002.jpg"],
        ["val2014/COCO_val2014_000000000001.jpg", "val2017/000000000002.jpg"],
        ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg", "val2017/000000000002.jpg"],
    ],
)
def test_an_image_is_found_by_its_url_where_no_file_has_its_name(tmp_path: Path, files: list[str]) -> None:
    found = with_names_of_files(lvis_05(tmp_path, files), may_lack=False)
    assert found.file_names.tolist() == files[:2]


def test_images_that_come_later_are_found_by_their_urls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = ["val2017/000000000001.jpg", "val2017/000000000002.jpg"]
    for there, message in (([], "2 of 2 images .* 'COCO_val2014_0*1.jpg'"), (files[1:], "1 of 2 .* 'http.*0*1.jpg'")):
        with pytest.raises(UserError, match=message):
            with_names_of_files(lvis_05(tmp_path, there), may_lack=False)
    assert with_names_of_files(lvis_05(tmp_path, files), may_lack=False).file_names.tolist() == files
    assert "named by 'coco_url', as no file has their 'file_name': 'COCO_val2014_000000000002.jpg'" in caplog.text
