"""From labels with errors to suggestions, by a short run that is trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rtdetrv2_train import load_detector
from rtdetrv2_train.commands.found_objects import find_objects
from rtdetrv2_train.commands.run_data import data_of_run
from rtdetrv2_train.evaluation.label_errors.suggestions import find_label_errors
from tests.running import TINY, WITHOUT_PICTURES, run_command
from tests.support import write_coco

RENAMED, MOVED, DROPPED = range(5, 120, 24), range(10, 120, 24), range(15, 120, 24)  # images, of one label each


def with_errors(folder: Path) -> dict[int, str]:
    """Make errors in the labels of the training part; gives the kind that each wrong image should be told to have."""
    path = folder / "annotations.json"
    content: dict[str, Any] = json.loads(path.read_text())
    for entry in content["annotations"]:
        left, top, width, height = entry["bbox"]
        if entry["image_id"] in RENAMED:
            entry["category_id"] = 10 - entry["category_id"]  # 3 or 7
        elif entry["image_id"] in MOVED:
            shift = 0.6 * width if left + 1.6 * width < 64 else -0.6 * width
            entry["bbox"] = [left + shift, top, width, height]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in DROPPED]
    path.write_text(json.dumps(content))
    kinds = {"wrong class": RENAMED, "badly placed": MOVED, "missing box": DROPPED}
    return {image: kind for kind, images in kinds.items() for image in images}


@pytest.mark.slow
def test_a_short_run_finds_the_errors_in_what_it_was_trained_on(tmp_path: Path) -> None:
    expected = with_errors(write_coco(tmp_path / "train", 120))
    write_coco(tmp_path / "val", 8, seed=1)
    parts = [
        f"data.{part}.{key}={part}/{name}"
        for part in ("train", "val")
        for key, name in (("images", "images"), ("annotations", "annotations.json"))
    ]
    run = tmp_path / "run"
    settings = (f"data.root={tmp_path}", *parts, "trainer.max_epochs=10", f"run_folder={run}")
    run_command("train", *TINY, *WITHOUT_PICTURES, *settings)

    table = data_of_run(run).train_annotations
    found = find_objects(load_detector(run), table, run, tmp_path / "found")
    first = find_label_errors(found.boxes, found.rows)[: len(expected)]
    right = [suggestion for suggestion in first if suggestion.image_id in expected]
    assert len({suggestion.image_id for suggestion in right}) >= 12
    assert sum(expected[suggestion.image_id] == suggestion.kind for suggestion in right) >= 10
