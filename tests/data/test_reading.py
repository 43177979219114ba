"""The parts of a set, as they are configured."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rtdetrv2_train.data.images.decode import Reading
from rtdetrv2_train.data.paths import checked_part
from rtdetrv2_train.data.reading import SetReader
from rtdetrv2_train.errors import UserError

AUTO = {"sources": None, "images": None, "annotations": None}


def reader(root: Path, train: Any = None, val: Any = None, **more: Any) -> SetReader:
    """A reader as the data module makes it; ``train`` and ``val`` are added to what ``data=auto`` gives."""
    settings: dict[str, Any] = {"format": None, "split_file": None, "may_lack_images": False, **more}
    parts = [
        checked_part(name, given if isinstance(given, str | list) else {**AUTO, "part": name, **(given or {})})
        for name, given in (("train", train), ("val", val))
    ]
    return SetReader(root, *parts, reading=Reading(), measures_range=True, **settings)


@pytest.fixture
def root(make_set: Any, tmp_path: Path) -> Path:
    """COCO's layout with parts of 8, 3 and 2 images."""
    for part, count in (("train", 8), ("val", 3), ("test", 2)):
        make_set(count, name=part)
    (tmp_path / "XDG").mkdir()
    return tmp_path


@pytest.fixture
def without_parts(make_set: Any, tmp_path: Path) -> Path:
    """Twenty images."""
    annotation_file, folder = make_set(20, name="images")
    (tmp_path / "mine").mkdir()
    shutil.move(folder, tmp_path / "mine/images")
    shutil.move(annotation_file, tmp_path / "mine/labels.json")
    return tmp_path / "mine"


def counts(read: SetReader) -> tuple[int, int]:
    train, val = read.both()
    return len(train), len(val)


def test_parts_are_found_at_the_root(root: Path) -> None:
    assert counts(reader(root)) == (8, 3)
    assert len(reader(root).validation()) == 3


def test_another_part_may_be_chosen(root: Path) -> None:
    assert counts(reader(root, val={"part": "test"})) == (8, 2)
    assert len(reader(root, val={"part": "test"}).validation()) == 2


def test_a_fraction_counts_more_than_a_part_that_is_there(root: Path) -> None:
    assert counts(reader(root, val={"fraction": 0.25})) == (6, 2)


def test_no_validation_part_holds_out_a_tenth(without_parts: Path) -> None:
    assert counts(reader(without_parts)) == (18, 2)
    assert counts(reader(without_parts, val={"fraction": 0.5})) == (10, 10)
    drawn = {tuple(reader(without_parts, val={"seed": seed}).both()[1].file_names) for seed in (0, 0, 1, 2, 3)}
    assert 2 <= len(drawn) <= 4


def test_files_may_be_given(root: Path) -> None:
    given = {"images": "test", "annotations": "test.json"}
    assert counts(reader(root, train=given)) == (2, 3)
    assert counts(reader(root, val=given)) == (8, 2)
    train, val = reader(root, train=given, val=given).both()
    assert val is train, "a set to overfit on is read once"


def test_sources_are_joined(root: Path, without_parts: Path) -> None:
    assert without_parts.is_relative_to(root)
    assert counts(reader(root, train=[".", "mine"])) == (28, 3)
    assert counts(reader(root, train=["test.json", {"images": "val", "annotations": "val.json"}])) == (5, 3)
    assert counts(reader(root, train={"sources": "mine"}, val="test.json")) == (20, 2)


def test_a_split_is_written_down_and_used_again(without_parts: Path, tmp_path: Path) -> None:
    split_file = tmp_path / "run/split.json"
    _, val = reader(without_parts, split_file=split_file).both()
    written = json.loads(split_file.read_text())
    assert (written["seed"], written["fraction"]) == (0, 0.1)
    assert written["validation"] == val.file_names.tolist()
    _, again = reader(without_parts, val={"seed": 5}, split_file=split_file).both()
    assert again.file_names.tolist() == val.file_names.tolist(), "another seed does not change a split that is written"
    measured = reader(without_parts, split_file=split_file).validation()
    assert measured.file_names.tolist() == val.file_names.tolist()


def test_images_that_came_later_are_trained_on(without_parts: Path, tmp_path: Path) -> None:
    split_file = tmp_path / "run/split.json"
    _, val = reader(without_parts, split_file=split_file).both()
    content = json.loads((without_parts / "labels.json").read_text())
    shutil.copy(without_parts / "images/0.png", without_parts / "images/new.png")
    content["images"].append({**content["images"][0], "id": 999, "file_name": "new.png"})
    (without_parts / "labels.json").write_text(json.dumps(content))
    train, again = reader(without_parts, split_file=split_file).both()
    assert "new.png" in train.file_names
    assert again.file_names.tolist() == val.file_names.tolist()


def test_another_set_without_parts_is_measured_on_as_a_whole(
    without_parts: Path, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split_file = tmp_path / "run/split.json"
    split_file.parent.mkdir()
    split_file.write_text(json.dumps({"seed": 0, "fraction": 0.1, "validation": ["elsewhere/a.jpg"]}))
    with caplog.at_level(logging.INFO):
        assert len(reader(without_parts, split_file=split_file).validation()) == 20
    assert "no validation part is known, so all images are evaluated on" in caplog.text


def test_a_damaged_split_file_is_named(without_parts: Path, tmp_path: Path) -> None:
    split_file = tmp_path / "split.json"
    split_file.write_text("{")
    with pytest.raises(UserError, match=r"split.json' cannot be read .*: restore it, or delete it for a new split"):
        reader(without_parts, split_file=split_file).both()


def test_a_part_that_is_not_there_is_named(root: Path) -> None:
    (root / "val.json").unlink()
    with pytest.raises(UserError, match=r"has no part 'val', but 'test', 'train': give data.val.part, or paths as"):
        reader(root).validation()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"images": "a"}, r"data.val.annotations is not set: give a path relative to data.root"),
        ({"annotations": "a"}, r"data.val.images is not set"),
        ({"annotations": "a", "images": "b", "sources": "c"}, r"data.val has both sources and annotations"),
        ({"fraction": 1}, r"data.val.fraction is 1: give a share above 0 and below 1"),
        ({"seed": -1}, r"data.val.seed is -1"),
        ({"part": "eval"}, r"data.val.part is 'eval': give train, val or test"),
        (3, r"data.val is 3: give a path"),
    ],
)
def test_parts_that_make_no_sense_are_refused(part: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked_part("val", part)


def test_a_part_that_a_path_does_not_have_is_named(root: Path) -> None:
    (root / "val.json").unlink()
    with pytest.raises(UserError, match=r"has no part 'val', but 'test', 'train': give data.val.part"):
        reader(root, val=".").both()


def test_images_are_held_out_where_the_root_only_holds_the_sets(make_set: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        annotation_file, folder = make_set(10, name=name)
        (tmp_path / "sets" / name).mkdir(parents=True)
        shutil.move(folder, tmp_path / "sets" / name / "images")
        shutil.move(annotation_file, tmp_path / "sets" / name / "labels.json")
    train, val = reader(tmp_path / "sets", train=["one", "other"]).both()
    assert (len(train) + len(val), bool(len(val))) == (20, True)


def test_images_in_both_parts_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader(root).both()
    assert "trained on" not in caplog.text
    content = json.loads((root / "val.json").read_text())
    for image, part in zip(content["images"], ("train", "val", "val"), strict=True):
        image["file_name"] = f"{part}/{image['file_name']}"
    (root / "val.json").write_text(json.dumps(content))
    reader(root, val={"annotations": "val.json", "images": "."}).both()
    assert "1 of 3 images of" in caplog.text
    assert "train/0.png': AP will be too high" in caplog.text


def test_a_split_of_images_that_are_gone_is_said_to_be_drawn_again(
    without_parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split_file = tmp_path / "split.json"
    split_file.write_text(json.dumps({"seed": 0, "fraction": 0.1, "validation": ["gone.png"]}))
    assert counts(reader(without_parts, split_file=split_file)) == (18, 2)
    assert "others are held out, some of which may have been trained on before" in caplog.text


def test_a_set_without_any_class_is_said_to_have_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        labels = {"shapes": [], "imagePath": f"{name}.png", "imageHeight": 30, "imageWidth": 40}
        (tmp_path / f"{name}.json").write_text(json.dumps(labels))
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"has no object, and so no class: annotate some objects first"):
        reader(tmp_path).both()
