from __future__ import annotations

import filecmp
import json
import threading
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest

from rtdetrv2_train.data import shapes
from rtdetrv2_train.data.images.decode import read_image
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.shapes import SHAPE_NAMES, ShapesDataModule, draw_shapes_dataset, draw_shapes_image
from rtdetrv2_train.errors import UserError

SMALL: dict[str, Any] = {"num_train": 6, "num_val": 3, "image_size": 64}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_equal_settings_draw_equal_sets(tmp_path: Path) -> None:
    draw_shapes_dataset(tmp_path / "one", **SMALL)
    draw_shapes_dataset(tmp_path / "two", **SMALL)
    draw_shapes_dataset(tmp_path / "other", **SMALL, seed=1)
    names = files(tmp_path / "one")
    assert len(names) == 6 + 3 + 2 + 1
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)[0] == names
    differing = filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", names, shallow=False)[1]
    assert sorted(differing) == names
    assert not filecmp.cmp(tmp_path / "one/train/000001.jpg", tmp_path / "one/val/000001.jpg", shallow=False)


def test_a_set_that_is_there_is_left_alone(tmp_path: Path) -> None:
    draw_shapes_dataset(tmp_path / "set", **SMALL)
    before = (tmp_path / "set/annotations/train.json").stat().st_mtime_ns
    draw_shapes_dataset(tmp_path / "set", **SMALL)
    assert (tmp_path / "set/annotations/train.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"'.*set' exists but does not hold the shapes of these settings"):
        draw_shapes_dataset(tmp_path / "set", **{**SMALL, "num_train": 7})


def test_several_may_draw_at_once(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def draw() -> None:
        try:
            draw_shapes_dataset(tmp_path / "set", **SMALL)
        except UserError as error:
            failures.append(error)

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing unfinished may stay behind"
    assert len(files(tmp_path / "set")) == 12


def test_a_set_is_ordinary_coco(tmp_path: Path) -> None:
    draw_shapes_dataset(tmp_path / "set", num_train=40, num_val=2)
    loaded = load_annotations(tmp_path / "set/annotations/train.json", tmp_path / "set/train")
    assert loaded.class_names == SHAPE_NAMES
    assert loaded.problems == ()
    assert set(loaded.labels.tolist()) == set(range(3))
    counts = np.diff(loaded.offsets)
    assert counts.min() >= 1
    assert counts.max() <= 5
    assert len(set(counts.tolist())) >= 4
    sides = (loaded.boxes[:, 2:] - loaded.boxes[:, :2]) / 128
    assert 0.3 < sides.max() <= 0.51
    assert sides.min() > 0.03
    assert read_image(loaded.path(0)).shape == (128, 128, 3)
    record = json.loads((tmp_path / "set/annotations/train.json").read_text())["annotations"][0]
    assert record["area"] == record["bbox"][2] * record["bbox"][3]


def test_boxes_are_tight_around_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Any] = []

    def paint_level(generator: Any, image: Any, mask: Any) -> Any:
        masks.append(mask > 0)
        touched = masks[-1].reshape(64, 4, 64, 4).any(axis=(1, 3))
        return np.where(touched[..., None], np.float32(50 * len(masks)), image)

    monkeypatch.setattr(shapes, "_painted", paint_level)
    monkeypatch.setattr(shapes, "_background", lambda generator, size: np.zeros((size, size, 3), dtype=np.float32))
    covered = 0
    for seed in range(40):
        masks.clear()
        image, objects = draw_shapes_image(64, (0, 0, seed))
        assert len(objects) == len(masks)
        for number, (_, box) in enumerate(objects):
            visible = masks[number] & ~np.any([np.zeros_like(masks[number]), *masks[number + 1 :]], axis=0)
            rows, columns = np.nonzero(visible)
            left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert box == [left / 4, top / 4, (right - left) / 4, (bottom - top) / 4]
            assert visible.sum() >= 0.4 * masks[number].sum()
            covered += visible.sum() < masks[number].sum()
        # In the picture itself, which only holds whole pixels, the last shape is the one that nothing covers.
        rows, columns = np.nonzero(np.round(image.mean(axis=2) / 50) == len(masks))
        left, top, width, height = objects[-1][1]
        assert [columns.min(), rows.min()] == [np.floor(left), np.floor(top)]
        assert [columns.max() + 1, rows.max() + 1] == [np.ceil(left + width), np.ceil(top + height)]
    assert covered > 10


def test_the_data_module_draws_on_first_use(tmp_path: Path) -> None:
    data = ShapesDataModule(
        root=tmp_path / "shapes",
        num_train=6,
        num_val=3,
        drawn_size=64,
        image_size=[64, 64],
        transforms={"flip": A.HorizontalFlip(p=0.5)},
        schedule={},
        reference_epochs=2,
        max_epochs=2,
        batch_size=4,
        eval_batch_size=4,
        num_workers=0,
    )
    assert data.num_classes == 3
    assert next(iter(data.train_dataloader())).images.shape == (4, 3, 64, 64)
    assert [len(batch) for batch in data.val_dataloader()] == [3]


@pytest.mark.parametrize("name", ["num_train", "image_size", "seed"])
def test_nonsense_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"the shapes' {name} is -1"):
        draw_shapes_dataset(tmp_path / "set", **{name: -1})
