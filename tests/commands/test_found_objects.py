"""Detections in the images of a set, to look at its labels with, and how they are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtdetrv2_train import Detector, UserError, load_detector
from rtdetrv2_train.commands import found_objects
from rtdetrv2_train.commands.found_objects import find_objects
from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.index import load_annotations
from tests.support import write_coco

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def detector(model_folder: Path) -> Detector:
    return load_detector(model_folder, device="cpu")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnnotationTable:
    """Five images, of which two are kept at a time."""
    monkeypatch.setattr(found_objects, "_BLOCK", 2)
    return load_annotations(labelled(tmp_path, dict(zip((3, 5, 7), NAMES, strict=True))), tmp_path / "images")


def labelled(folder: Path, classes: dict[int, str]) -> Path:
    path = write_coco(folder, 5) / "annotations.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": id_, "name": name} for id_, name in classes.items()]
    content["annotations"] = [
        {"id": n + 1, "image_id": content["images"][n % 5]["id"], "category_id": list(classes)[n % len(classes)]}
        | {"bbox": [2.0 + n, 3.0, 10.0, 12.0]}
        for n in range(12)
    ]
    path.write_text(json.dumps(content))
    return path


def counting(detector: Detector) -> tuple[Detector, list[int]]:
    """The detector, and how many images it is given in each call."""
    calls: list[int] = []

    class Counting(type(detector)):  # type: ignore[misc]
        def predict(self, images: Any, *arguments: Any, **options: Any) -> Any:
            calls.append(len(images))
            return super().predict(images, *arguments, **options)

    return Counting(**vars(detector)), calls


def test_detections_are_those_of_the_detector_in_every_image(
    detector: Detector, table: AnnotationTable, tmp_path: Path
) -> None:
    boxes = find_objects(detector, table, "model", tmp_path / "found").boxes
    assert boxes.image_ids.tolist() == sorted(table.image_ids.tolist())
    assert boxes.class_names == NAMES
    for place, image_id in enumerate(boxes.image_ids.tolist()):
        index = table.image_ids.tolist().index(image_id)
        expected = detector.predict(table.image(index).decode()[0], threshold=0.0)
        kept = expected.scores >= 0.01
        own = boxes.found_images == place
        order = np.argsort(-boxes.found_scores[own], kind="stable")
        np.testing.assert_allclose(boxes.found_scores[own][order], expected.scores[kept], atol=1e-6)
        corners = boxes.found_boxes[own][order]
        corners[:, 2:] += corners[:, :2]
        np.testing.assert_allclose(np.sort(corners, axis=0), np.sort(expected.boxes[kept], axis=0), atol=1e-3)


def test_what_is_kept_is_not_computed_again_and_what_is_lost_is(
    detector: Detector, table: AnnotationTable, tmp_path: Path
) -> None:
    counted, calls = counting(detector)
    first = find_objects(counted, table, "model", tmp_path / "found").boxes
    assert calls == [2, 2, 1]
    again = find_objects(counted, table, "model", tmp_path / "found").boxes
    assert calls == [2, 2, 1]
    (tmp_path / "found" / "detections_0000002" / "scores.npy").write_bytes(b"damaged")
    mended = find_objects(counted, table, "model", tmp_path / "found").boxes
    assert calls == [2, 2, 1, 2]
    for boxes in (again, mended):
        assert all(np.array_equal(getattr(boxes, name), value) for name, value in vars(first).items())


def test_an_interrupted_search_goes_on_where_it_stopped(
    detector: Detector, table: AnnotationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, calls = counting(detector)
    with monkeypatch.context() as patch:
        real, done = found_objects.collect_detections, []

        def interrupted(*arguments: Any) -> None:
            if len(done) == 2:
                raise KeyboardInterrupt
            done.append(real(*arguments))

        patch.setattr(found_objects, "collect_detections", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_objects(counted, table, "model", tmp_path / "found")
    assert calls == [2, 2]
    find_objects(counted, table, "model", tmp_path / "found")
    assert calls == [2, 2, 1]


def test_other_weights_or_other_images_are_computed_again(
    detector: Detector, table: AnnotationTable, tmp_path: Path
) -> None:
    find_objects(detector, table, "model", tmp_path / "found")
    other = replace(detector, model=type(detector.pytorch_model)(detector.pytorch_model.architecture).eval())
    other.model.load_state_dict(detector.model.state_dict())
    with torch.no_grad():
        next(other.model.parameters()).add_(0.01)
    counted, calls = counting(other)
    find_objects(counted, table, "model", tmp_path / "found")
    assert calls == [2, 2, 1]
    find_objects(counted, table.subset(np.array([0, 1, 3])), "model", tmp_path / "found")
    assert calls == [2, 2, 1, 1]


def test_labels_of_classes_that_the_detector_lacks_are_left_out_and_rows_stay_those_of_the_table(
    detector: Detector, tmp_path: Path
) -> None:
    path = labelled(tmp_path, {1: "violet", 2: "blue", 4: "red"})
    table = load_annotations(path, tmp_path / "images")
    found = find_objects(detector, table, "model", tmp_path / "found")
    kept = table.raw_labels != 0
    assert found.rows.tolist() == np.flatnonzero(kept).tolist()
    np.testing.assert_array_equal(found.boxes.truth_boxes, table.raw_boxes[found.rows])
    names = [found.boxes.class_names[label] for label in found.boxes.truth_classes]
    assert names == [table.class_names[label] for label in table.raw_labels[found.rows]]


def test_a_set_of_other_classes_is_refused(detector: Detector, tmp_path: Path) -> None:
    table = load_annotations(labelled(tmp_path, {1: "violet"}), tmp_path / "images")
    with pytest.raises(UserError, match="no class in common"):
        find_objects(detector, table, "model", tmp_path / "found")


def test_nothing_is_found_in_images_that_cannot_be_read(
    detector: Detector, table: AnnotationTable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table.path(1).write_bytes(b"damaged")
    boxes = find_objects(detector, table, "model", tmp_path / "found").boxes
    place = np.searchsorted(boxes.image_ids, table.image_ids[1])
    assert not (boxes.found_images == place).any()
    assert "cannot be read" in caplog.text
