from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.formats import parquet_images
from rtdetrv2_train.data.formats.parquet import FORMAT
from rtdetrv2_train.errors import UserError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog"]
BOXES = [[2.0, 3.0, 60.0, 20.0], [50.0, 40.0, 49.0, 39.0]]
CLASS_LABEL = {"names": NAMES, "_type": "ClassLabel"}
FEATURES = {"objects": {"feature": {"bbox": {}, "category": CLASS_LABEL}, "_type": "Sequence"}}


def picture(shade: int, kind: str = "PNG", size: tuple[int, int] = (100, 80)) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, shade).save(stream, kind)
    return stream.getvalue()


def row(number: int = 0, path: str | None = None, **objects: Any) -> dict[str, Any]:
    told = objects or {"bbox": BOXES, "category": [0, 1]}
    return {"image": {"bytes": picture(number), "path": path}, "objects": told}


def write(path: Path, rows: Sequence[dict[str, Any]], features: dict[str, Any] | None = FEATURES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def read(path: Path) -> AnnotationTable:
    (source,) = FORMAT.find(path)
    FORMAT.state(source)
    return FORMAT.read(source, "auto")


def test_boxes_classes_and_images_are_those_of_the_rows(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [row(10), row(20), row(30, bbox=[], category=[])])
    table = read(tmp_path)
    assert np.abs(table.raw_boxes - (BOXES + BOXES)).max() < 1e-3
    assert (table.category_ids, table.class_names) == ((0, 1), ("cat", "dog"))
    assert table.raw_labels.tolist() == [0, 1, 0, 1]
    assert table.image_ids.tolist() == [1, 2, 3]
    assert [int(np.asarray(Image.open(table.path(place)))[0, 0]) for place in range(3)] == [10, 20, 30]
    assert table.size(0) == (80, 100)


def test_an_unreadable_image_is_left_out_where_it_may_be(tmp_path: Path) -> None:
    bad = {"image": {"bytes": b"none", "path": "a.jpg"}, "objects": {"bbox": BOXES, "category": [0, 1]}}
    write(tmp_path / "train.parquet", [row(10), bad, row(30)])
    with pytest.raises(UserError, match=r"cannot be read.*data\.on_bad_image=skip"):
        read(tmp_path)
    (source,) = FORMAT.find(tmp_path)
    table = FORMAT.read(replace(source, may_lack_images=True), "auto")
    assert (table.image_ids.tolist(), len(table.unreadable)) == ([1, 3], 1)
    assert np.abs(table.raw_boxes - (BOXES + BOXES)).max() < 1e-3


def test_objects_may_be_a_list_of_structs(tmp_path: Path) -> None:
    objects = [{"bbox": box, "label": label} for box, label in zip(BOXES, (1, 0), strict=True)]
    features = {"objects": {"feature": {"bbox": {}, "label": CLASS_LABEL}, "_type": "List"}}
    write(tmp_path / "a.parquet", [{"image": {"bytes": picture(1), "path": None}, "objects": objects}], features)
    table = read(tmp_path)
    assert (table.raw_boxes.tolist(), table.raw_labels.tolist()) == (BOXES, [1, 0])


def test_boxes_and_labels_may_be_columns(tmp_path: Path) -> None:
    features = {"label": {"feature": CLASS_LABEL, "_type": "Sequence"}}
    write(tmp_path / "a.parquet", [{"image": {"bytes": picture(1)}, "bboxes": BOXES, "label": [1, 0]}], features)
    table = read(tmp_path)
    assert (table.raw_boxes.tolist(), table.raw_labels.tolist()) == (BOXES, [1, 0])


def test_corners_are_found_out_by_their_values(tmp_path: Path) -> None:
    corners = [[left, top, left + width, top + height] for left, top, width, height in BOXES]
    write(tmp_path / "a.parquet", [row(bbox=corners, category=[0, 1])])
    assert np.abs(read(tmp_path).raw_boxes - BOXES).max() < 1e-3


def test_crowd_regions_and_areas_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(bbox=BOXES, category=[0, 1], iscrowd=[0, 1], area=[77.5, 88.0])])
    table = read(tmp_path)
    assert (table.raw_crowd.tolist(), table.raw_areas.tolist()) == ([False, True], [77.5, 88.0])


def test_areas_of_boxes_in_shares_are_those_of_the_boxes(tmp_path: Path) -> None:
    shares = [[0.02, 0.0375, 0.6, 0.25], [0.5, 0.5, 0.49, 0.4875]]
    write(tmp_path / "a.parquet", [row(bbox=shares, category=[0, 1], area=[0.15, 0.2])])
    table = read(tmp_path)
    assert np.abs(table.raw_boxes - BOXES).max() < 1e-3
    assert np.abs(table.raw_areas - [1200, 1911]).max() < 1e-3


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "README.md",
            "---\ndataset_info:\n  features:\n  - name: objects\n    struct:\n    - name: category\n      list:\n"
            "        class_label:\n          names:\n            '1': dog\n            '0': cat\n---\n# A set\n",
        ),
        ("dataset_infos.json", json.dumps({"default": {"features": FEATURES}})),
    ],
)
def test_names_of_classes_may_lie_beside_the_files(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", [row()], None)
    (tmp_path / file).write_text(text)
    assert read(tmp_path).class_names == ("cat", "dog")


def test_without_names_classes_are_called_after_their_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(bbox=BOXES, category=[7, 3])], None)
    table = read(tmp_path)
    assert (table.category_ids, table.class_names) == ((3, 7), ("3", "7"))


def test_labels_that_are_text_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(bbox=BOXES, category=["dog", "ant"])], None)
    table = read(tmp_path)
    assert (table.category_ids, table.class_names, table.raw_labels.tolist()) == ((1, 2), ("ant", "dog"), [1, 0])


def test_boxes_without_labels_are_of_one_class(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(bbox=BOXES)], None)
    assert read(tmp_path).class_names == ("object",)


def test_several_files_make_one_part(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "data" / f"train-{number:05d}-of-00002.parquet", [row(10 + number)])
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", [row(3)])
    found = {source.part: source for source in FORMAT.find(tmp_path)}
    assert set(found) == {"train", "val"}
    assert len(FORMAT.read(found["train"], "auto")) == 2


def test_files_with_numbers_only_are_named_by_their_folder(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "default" / "train" / f"{number:04d}.parquet", [row(number)])
    (source,) = FORMAT.find(tmp_path)
    assert (source.part, len(FORMAT.read(source, "auto"))) == ("train", 2)


def test_years_in_names_are_no_numbers_of_files(tmp_path: Path) -> None:
    for year in (2007, 2012):
        write(tmp_path / f"voc-{year}.parquet", [row()])
    with pytest.raises(UserError, match=r"has 2 sets of parquet files: 'voc-2007\.parquet', 'voc-2012\.parquet'"):
        FORMAT.find(tmp_path)


def test_missing_files_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train-00001-of-00003.parquet", [row()])
    assert len(read(tmp_path)) == 1
    assert "only 1 of 3 files are there" in caplog.text


def test_images_are_unpacked_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row(10)])
    table = read(tmp_path)
    before = table.path(0).stat().st_mtime_ns
    assert read(tmp_path).path(0).stat().st_mtime_ns == before
    write(path, [row(20)])
    os.utime(path, ns=(1, 1))
    assert int(np.asarray(Image.open(read(tmp_path).path(0)))[0, 0]) == 20


def test_an_unpacking_that_was_interrupted_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", [row(10), row(20)])
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / ".a.images").exists()
    assert len(read(tmp_path)) == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_images_that_are_gone_are_unpacked_again_for_the_index(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(10)])
    (source,) = FORMAT.find(tmp_path)
    state = FORMAT.state(source)
    (tmp_path / ".a.images").rename(tmp_path / "elsewhere")
    assert FORMAT.state(source) == state
    assert (tmp_path / ".a.images").is_dir()


def test_images_go_to_the_cache_where_the_folder_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "set" / "a.parquet", [row(10)])
    monkeypatch.setattr(parquet_images.os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = read(tmp_path / "set")
    assert table.path(0).is_relative_to(tmp_path / "cache")
    assert table.path(0).is_file()


def test_names_of_images_are_made_unique(tmp_path: Path) -> None:
    rows = [row(1, "a/b c.png"), row(2, "b c.png"), {**row(), "image": {"bytes": picture(3, "JPEG"), "path": "x.png"}}]
    write(tmp_path / "a.parquet", rows)
    names = [Path(name).name for name in read(tmp_path).file_names]
    assert names == ["00000000-b_c.png", "00000001-b_c.png", "00000002-x.jpg"]


def test_a_file_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"text": "x", "label": 1}], None)
    with pytest.raises(UserError, match=r"'.*a\.parquet' holds no images: its columns are 'text', 'label'; a column"):
        read(tmp_path)


def test_images_by_name_only_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [row(), {**row(), "image": {"bytes": None, "path": "b.png"}}])
    with pytest.raises(UserError, match=r"holds no image in row 1, but 'b\.png': embed the images"):
        read(tmp_path)


def test_a_file_without_boxes_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"image": {"bytes": picture(1), "path": None}, "label": 1}], None)
    with pytest.raises(UserError, match=r"has no boxes: its columns are 'image', 'label'; a column 'objects'"):
        read(tmp_path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row()])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"'.*a\.parquet' cannot be read as parquet \(.*\): get it again"):
        read(tmp_path)


def test_broken_boxes_are_problems_of_their_image(tmp_path: Path) -> None:
    broken = [[1.0, float("nan"), 3.0, 4.0], [1.0, 2.0, 3.0], *BOXES]
    write(tmp_path / "a.parquet", [row(bbox=broken, category=[0, 1, 0, 9])])
    table = read(tmp_path)
    assert [problem.reason for problem in table.problems] == [
        "unknown label '9'",
        "bbox [1.0, nan, 3.0, 4.0] is not four finite numbers",
        "bbox [1.0, 2.0, 3.0] is not four finite numbers",
    ]
    assert table.raw_boxes.tolist() == BOXES[:1]


def test_other_files_are_not_taken_for_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no parquet")
    assert FORMAT.find(tmp_path) == []


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", [row()])
    (source,) = FORMAT.find(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'rtdetrv2-train\[parquet\]'"):
        FORMAT.read(source, "auto")
