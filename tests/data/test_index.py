from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtdetrv2_train.data import index as index_module
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.array_folder import ArrayFolder, UnusableArraysError, write_arrays
from rtdetrv2_train.data.formats.coco import read_coco_file
from rtdetrv2_train.data.images.cache import ImageCache
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by the superuser only")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def beside(annotation_file: Path) -> Path:
    return annotation_file.with_name(f".{annotation_file.name}.index")


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("the annotation file must not be read")

    monkeypatch.setattr(index_module, "read_source", read)


def assert_equal(one: AnnotationTable, other: AnnotationTable) -> None:
    for field in fields(AnnotationTable):
        if field.name != "index":
            left, right = getattr(one, field.name), getattr(other, field.name)
            assert type(left) is type(right)
            np.testing.assert_array_equal(left, right, err_msg=field.name)


def from_memory(annotation_file: Path, folder: Path) -> AnnotationTable:
    """What the file says, without an index."""
    return read_coco_file(annotation_file, folder)


def whole(index: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in index.iterdir()}


def test_a_later_run_opens_the_index_instead_of_the_file(make_set: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = make_set(5)
    first = load_annotations(*files)
    assert_equal(first, from_memory(*files))
    forbid_reading(monkeypatch)
    later = load_annotations(*files)
    assert_equal(first, later)
    assert not later.boxes.flags.writeable
    assert beside(files[0]).is_dir()


def test_an_index_that_is_not_used_is_named_once(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    annotation_file, folder = make_set(2)
    load_annotations(annotation_file, folder)
    load_annotations(annotation_file, folder.parent)
    assert caplog.text.count("is not used") == 1
    caplog.clear()
    load_annotations(annotation_file, folder.parent)
    assert "is not used" not in caplog.text


def test_problems_are_reported_from_the_index_too(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    box = {"id": 1, "image_id": 10, "category_id": 3, "bbox": [0, 0, 0, 5]}
    files = make_set(1, annotations=[box, {**box, "id": None}])
    problems = load_annotations(*files).problems
    assert [problem.annotation_id for problem in problems] == [1, None]
    caplog.clear()
    assert load_annotations(*files).problems == problems
    assert "2 broken boxes" in caplog.text


def test_a_changed_file_gets_a_new_index(make_set: Any) -> None:
    annotation_file, folder = make_set(2)
    assert load_annotations(annotation_file, folder).class_names == ("cat", "dog")
    annotation_file.write_text(annotation_file.read_text().replace("dog", "fox"))
    assert load_annotations(annotation_file, folder).class_names == ("cat", "fox")


def damaged(index: Path, damage: str) -> None:
    boxes, description = index / "boxes.npy", index / "description.json"
    content = boxes.read_bytes()
    if damage == "a folder of nothing":
        shutil.rmtree(index)
        index.mkdir()
    elif damage == "a file, as an earlier version kept it":
        shutil.rmtree(index)
        index.write_bytes(content)
    elif damage == "an array is missing":
        boxes.unlink()
    elif damage.startswith("the description"):
        text = description.read_bytes()
        description.write_bytes(text[: len(text) // 2] if damage.endswith("half") else b"")
    else:
        boxes.write_bytes(
            {
                "an array is empty": b"",
                "an array is half": content[: len(content) // 2],
                "an array is longer": content + b"\0",
                "an array of zeros": bytes(len(content)),
                "another array": (index / "labels.npy").read_bytes(),
            }[damage]
        )


@pytest.mark.parametrize(
    "damage",
    [
        "a folder of nothing",
        "a file, as an earlier version kept it",
        "the description is empty",
        "the description is cut to half",
        "an array is missing",
        "an array is empty",
        "an array is half",
        "an array is longer",
        "an array of zeros",
        "another array",
    ],
)
def test_a_damaged_index_is_built_again(make_set: Any, damage: str) -> None:
    files = make_set(5)
    load_annotations(*files)
    index = beside(files[0])
    before = whole(index)
    damaged(index, damage)
    assert_equal(load_annotations(*files), from_memory(*files))
    assert whole(index) == before
    assert list(index.parent.glob(".*.part")) == []


def test_a_flipped_bit_anywhere_in_the_index_is_noticed(make_set: Any) -> None:
    files = make_set(3)
    load_annotations(*files)
    index, expected = beside(files[0]), from_memory(*files)
    for name, content in whole(index).items():
        for position in range(0, len(content), 97):
            (index / name).write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
            assert_equal(load_annotations(*files), expected)
            assert (index / name).read_bytes() == content


def test_an_index_that_is_replaced_stays_usable_where_it_is_open(make_set: Any) -> None:
    annotation_file, folder = make_set(4)
    opened = load_annotations(annotation_file, folder)
    assert opened.index is not None
    expected = from_memory(annotation_file, folder)
    pickled = pickle.dumps(opened)
    content = json.loads(annotation_file.read_text())
    annotation_file.write_text(json.dumps({**content, "annotations": content["annotations"][2:]}))
    assert len(load_annotations(annotation_file, folder).boxes) == 6
    assert_equal(opened, expected)
    with pytest.raises(UnusableArraysError, match="an earlier state"):
        pickle.loads(pickled)


def test_an_index_that_is_replaced_while_it_is_opened_is_not_used(
    make_set: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without comparing checksums, as workers open it, nothing else would tell arrays of two indices apart."""
    files = make_set(2)
    index = load_annotations(*files).index
    assert index is not None
    load = np.load

    def replacing(file: Path, **options: Any) -> Any:
        if file.name == "labels.npy":
            write_arrays(index.path, {"about": "something else"}, {}, index.arrays)
        return load(file, **options)

    monkeypatch.setattr(np, "load", replacing)
    with pytest.raises(UnusableArraysError, match="replaced while it was being opened"):
        ArrayFolder(index.path, index.key, check=False)


def test_an_index_goes_to_the_cache_where_its_place_cannot_be_written(
    make_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = make_set(3)
    # A folder that is a file cannot be written to by anyone, not even by the superuser.
    monkeypatch.setattr(index_module, "_beside", lambda source: source.annotations / "index")
    expected = load_annotations(*files)
    assert len(list((tmp_path / "cache/rtdetrv2_train").glob("set.json-*.index"))) == 1
    forbid_reading(monkeypatch)
    assert_equal(load_annotations(*files), expected)


def test_a_full_disk_costs_the_index_but_not_the_run(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    files = make_set(100)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        loaded = load_annotations(*files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_equal(loaded, from_memory(*files))
    assert "no index of" in caplog.text
    assert "File too large" in caplog.text
    assert [path.name for path in files[0].parent.rglob("*.part")] == []
    assert not beside(files[0]).exists()
    assert_equal(load_annotations(*files), loaded)
    assert beside(files[0]).exists()


def test_a_disk_that_is_really_full_costs_the_index_but_not_the_run(
    make_set: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk / "cache"))
    written, folder = make_set(5)
    annotation_file = small_disk / "set.json"
    shutil.copy(written, annotation_file)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free))
    loaded = load_annotations(annotation_file, folder)
    np.testing.assert_array_equal(loaded.boxes, from_memory(written, folder).boxes)
    assert "no index of" in caplog.text
    assert caplog.text.count("No space left on device") == 2, "neither beside the file nor in the cache"
    assert [path.name for path in small_disk.rglob("*") if path.suffix in (".part", ".index")] == []
    assert loaded.index is None
    ballast.unlink()
    assert_equal(load_annotations(annotation_file, folder), loaded)
    assert beside(annotation_file).is_dir()


def test_a_cache_of_images_asks_a_full_disk_for_room_beforehand(make_set: Any, small_disk: Path) -> None:
    annotations = load_annotations(*make_set(40, (64, 64)))
    with pytest.raises(UserError, match=r"cannot keep 0\.0 GB in .* \(No space left on device\): make room"):
        ImageCache(annotations, (64, 64), small_disk / "images")
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
def test_processes_that_start_together_build_one_index(make_set: Any, tmp_path: Path) -> None:
    annotation_file, folder = make_set(4)
    code = f"""
import sys, time
from pathlib import Path
from rtdetrv2_train.data import index
read = index.read_source
def slowly(*source):
    with Path({str(tmp_path / "built")!r}).open("a") as log:
        log.write("x")
    time.sleep(0.5)
    return read(*source)
index.read_source = slowly
loaded = index.load_annotations(Path({str(annotation_file)!r}), Path({str(folder)!r}))
print(loaded.boxes.tobytes().hex(), loaded.file_names.tolist())
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)
    ]
    printed = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(printed) == 1
    assert (tmp_path / "built").read_text() == "x"


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_not_waited_for(make_set: Any, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits for a lock, {seconds} s"))
    files = make_set(2)
    assert_equal(load_annotations(*files), from_memory(*files))


def test_another_process_gets_the_index_by_name(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    one, many = (load_annotations(*make_set(count, name=f"set{count}")) for count in (1, 300))
    sizes = [len(pickle.dumps(each)) for each in (one, many)]
    assert sizes[1] < sizes[0] + 20
    assert_equal(pickle.loads(pickle.dumps(many)), many)
    fewer = many.relabelled(load_annotations(*make_set(1, name="cats", categories=[{"id": 3, "name": "cat"}])).classes)
    assert_equal(pickle.loads(pickle.dumps(fewer)), fewer)


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "a/../../secret.png", "/../etc/secret.png", "..\\secret.png", "C:\\..\\x.png", "/", "", "a\0b"],
)
def test_a_file_name_that_leads_out_of_the_folder_is_refused(make_set: Any, name: str) -> None:
    files = make_set(1, images=[{"id": 10, "file_name": name, "height": 4, "width": 4}])
    with pytest.raises(UserError, match=r"entry 0 of 'images' of .* as 'file_name'") as raised:
        load_annotations(*files)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["/etc/secret.png", "\\etc\\secret.png", "C:\\etc\\secret.png", "C:/etc/secret.png"])
def test_an_absolute_file_name_is_taken_for_one_within_the_folder(make_set: Any, name: str) -> None:
    files = make_set(1, images=[{"id": 10, "file_name": name, "height": 4, "width": 4}])
    assert load_annotations(*files).path(0) == files[1] / "etc/secret.png"


@pytest.mark.parametrize("name", ["a/..b/../x..png", "..x.png", "a/../x.png"])
def test_a_file_name_may_wander_within_the_folder(make_set: Any, name: str) -> None:
    files = make_set(1, images=[{"id": 10, "file_name": name, "height": 4, "width": 4}])
    assert load_annotations(*files).path(0) == files[1] / name


def test_sizes_read_from_images_belong_to_that_folder(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    images = [{"id": 10, "file_name": "0.png"}]
    annotation_file, small = make_set(1, (48, 64), name="small", images=images)
    _, large = make_set(1, (96, 128), name="large")
    heights = [load_annotations(annotation_file, folder).heights.tolist() for folder in (small, large, large)]
    assert heights == [[48], [96], [96]]


def test_unusual_annotations_are_read_as_usual_ones(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Fields of other types than COCO's, which the fast parser leaves to a tolerant one."""
    usual = {"image_id": 10, "category_id": 3, "bbox": [4, 6.0, 20, 10], "id": 1, "area": 200, "iscrowd": 0}
    unusual = {**usual, "id": "one", "area": "large", "iscrowd": False, "segmentation": [[1, 2]], "more": None}
    loaded = load_annotations(*make_set(1, annotations=[usual, unusual, {**usual, "area": None, "id": None}]))
    assert loaded.boxes.tolist() == [[4, 6, 24, 16]] * 3
    assert loaded.raw_areas.tolist() == [200] * 3
    assert loaded.problems == ()


def test_index_messages_stay_out_of_the_way(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_annotations(*make_set(1))
    assert caplog.text == ""
