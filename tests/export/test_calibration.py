"""The images that int8 is calibrated on show all there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.export import calibration
from rtdetrv2_train.export.calibration import chosen_images
from tests.support import write_coco


def test_every_class_is_among_a_few_images(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    annotations = load_annotations(folder / "annotations.json", folder / "images")
    chosen = chosen_images(annotations, 2)
    assert len(chosen) == len(set(chosen)) == 2
    assert chosen == chosen_images(annotations, 2)
    labels = {int(label) for index in chosen for label in annotations.targets(index)[1]}
    assert labels == set(annotations.labels.tolist())
    assert sorted(chosen_images(annotations, 10**6)) == list(range(len(annotations)))


def test_a_large_set_is_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_coco(tmp_path)
    annotations = load_annotations(folder / "annotations.json", folder / "images")
    monkeypatch.setattr(calibration, "_CONSIDERED", 3)
    chosen = chosen_images(annotations)
    assert sorted(chosen) == [0, (len(annotations) - 1) // 2, len(annotations) - 1]
