"""Images that are missing or cannot be read, where labels do not give their sizes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from rtdetrv2_train.data.images.decode import Reading
from rtdetrv2_train.data.paths import checked_part
from rtdetrv2_train.data.reading import SetReader
from rtdetrv2_train.errors import UserError

NAMES = ("a", "b", "c", "d")
PARTS = ("train", "val")


def coco(root: Path) -> Path:
    content = {
        "images": [{"id": n, "file_name": f"old/{name}.jpg"} for n, name in enumerate(NAMES)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in range(4)],
        "categories": [{"id": 1, "name": "person"}],
    }
    (root / "labels.json").write_text(json.dumps(content))
    return root / "labels.json"


def yolo(root: Path) -> Path:
    (root / "classes.txt").write_text("person")
    return texts(root / "labels", "0 0.5 0.5 0.1 0.1")


def visdrone(root: Path) -> Path:
    return texts(root / "annotations", "1,2,3,4,1,1,0,0")


def voc(root: Path) -> Path:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
    return texts(root / "xml", f"<annotation><object><name>person</name>{box}</object></annotation>", "xml")


def labelme(root: Path) -> Path:
    shape = {"label": "person", "points": [[1, 2], [4, 6]], "shape_type": "rectangle"}
    return texts(root / "images", json.dumps({"shapes": [shape], "version": "5.4.1"}), "json")


def cvat(root: Path) -> Path:
    box = '<box label="person" xtl="1" ytl="2" xbr="4" ybr="6"/>'
    images = (f'<image id="{n}" name="{name}.jpg">{box}</image>' for n, name in enumerate(NAMES))
    (root / "annotations.xml").write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>")
    return root / "annotations.xml"


def crowdhuman(root: Path) -> Path:
    box = {"tag": "person", "fbox": [1, 2, 3, 4]}
    (root / "a.odgt").write_text("\n".join(json.dumps({"ID": name, "gtboxes": [box]}) for name in NAMES))
    return root / "a.odgt"


def openimages(root: Path) -> Path:
    lines = ("ImageID,LabelName,XMin,XMax,YMin,YMax", *(f"{name},person,0.1,0.2,0.1,0.2" for name in NAMES))
    (root / "boxes.csv").write_text("\n".join(lines))
    return root / "boxes.csv"


def texts(folder: Path, content: str, suffix: str = "txt") -> Path:
    """A file for each image."""
    folder.mkdir(exist_ok=True)
    for name in NAMES:
        (folder / f"{name}.{suffix}").write_text(content)
    return folder


FORMATS = (coco, yolo, voc, cvat, labelme, openimages, crowdhuman, visdrone)
NAMING = (coco, voc, cvat, labelme, crowdhuman, visdrone)  # formats whose labels name images that are not there


def make(root: Path, write: Callable[[Path], Path]) -> dict[str, dict[str, str]]:
    """A set of two parts, and its configuration."""
    config = {}
    for part in PARTS:
        (root / part / "images").mkdir(parents=True)
        for name in NAMES:
            Image.new("RGB", (100, 80)).save(root / part / "images" / f"{name}.jpg")
        labels = write(root / part)
        config[part] = {"annotations": labels.relative_to(root).as_posix(), "images": f"{part}/images"}
    return config


def damage(image: Path) -> None:
    """Spoil an image so that size and time of the file stay as they are."""
    state = image.stat()
    image.write_bytes(bytes(state.st_size))
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))


def names_read(root: Path, config: dict[str, dict[str, str]], skip: bool) -> list[list[str]]:
    """Names of the images of both parts, each of which has its box."""
    parts = [checked_part(part, {"sources": None, "part": part, **config[part]}) for part in PARTS]
    settings = {"format": None, "split_file": None, "measures_range": True, "may_lack_images": skip}
    tables = SetReader(root, *parts, reading=Reading("auto"), **settings).both()  # type: ignore[arg-type]
    for table in tables:
        assert table.raw_images.tolist() == list(range(len(table)))
        assert len(table.boxes) == len(table)
        assert table.problems == ()
    return [[Path(name).stem for name in table.file_names] for table in tables]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("write", FORMATS)
def test_a_damaged_image_stops_the_set_or_is_left_out_with_its_boxes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, write: Callable[[Path], Path]
) -> None:
    config = make(tmp_path, write)
    for part, name in (("train", "b"), ("val", "a"), ("val", "c")):
        damage(tmp_path / part / "images" / f"{name}.jpg")
    with pytest.raises(UserError, match=r"b\.jpg'.*cannot be read.* data\.on_bad_image=skip"):
        names_read(tmp_path, config, skip=False)
    for _ in range(2):  # the second time from the index
        caplog.clear()
        assert names_read(tmp_path, config, skip=True) == [["a", "c", "d"], ["b", "d"]]
        said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
        assert len(said) == 2
        assert "1 of 4 images are missing or cannot be read, and are left out with their boxes; the first" in said[0]
        assert "2 of 4 images" in said[1]
        assert "a.jpg'" in said[1]


@pytest.mark.parametrize("write", NAMING)
def test_a_missing_image_stops_the_set_or_is_left_out_with_its_boxes(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    config = make(tmp_path, write)
    (tmp_path / "val/images/c.jpg").unlink()
    with pytest.raises(UserError, match=r"data\.on_bad_image=skip"):
        names_read(tmp_path, config, skip=False)
    assert names_read(tmp_path, config, skip=True) == [list(NAMES), ["a", "b", "d"]]


@pytest.mark.parametrize("write", FORMATS)
def test_a_set_that_lacks_images_is_read_again_where_they_must_be_there_or_are_mended(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    config = make(tmp_path, write)
    image = tmp_path / "train/images/b.jpg"
    good, state = image.read_bytes(), image.stat()
    damage(image)
    assert names_read(tmp_path, config, skip=True) == [["a", "c", "d"], list(NAMES)]
    with pytest.raises(UserError, match=r"b\.jpg'.*cannot be read"):
        names_read(tmp_path, config, skip=False)
    image.write_bytes(good)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert names_read(tmp_path, config, skip=True) == [list(NAMES), list(NAMES)]
    assert names_read(tmp_path, config, skip=False) == [list(NAMES), list(NAMES)]


@pytest.mark.parametrize("write", FORMATS)
def test_where_no_image_can_be_read_the_set_is_an_error(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    config = make(tmp_path, write)
    for name in NAMES:
        damage(tmp_path / f"train/images/{name}.jpg")
    with pytest.raises(UserError, match=r"none of the 4 images of '.*' can be read, the first is '.*a\.jpg'"):
        names_read(tmp_path, config, skip=True)
