"""From labels with errors to suggestions, by a short run on made-up shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rtdetrv2_train import load_detector
from rtdetrv2_train.commands.found_objects import find_objects
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.shapes import draw_shapes_dataset
from rtdetrv2_train.evaluation.label_errors.suggestions import find_label_errors
from tests.running import TINY, WITHOUT_PICTURES, run_command

RENAMED, DROPPED = range(0, 200, 25), range(10, 200, 25)  # rows of the annotation file


@pytest.mark.slow
def test_a_short_run_finds_the_errors_in_what_it_was_trained_on(tmp_path: Path) -> None:
    draw_shapes_dataset(tmp_path, num_train=240, num_val=8, image_size=64, seed=3)
    path = tmp_path / "annotations/train.json"
    content = json.loads(path.read_text())
    entries, ids = content["annotations"], [category["id"] for category in content["categories"]]
    for row in RENAMED:
        entries[row]["category_id"] = ids[(ids.index(entries[row]["category_id"]) + 1) % len(ids)]
    dropped = {(entries[row]["image_id"], tuple(entries[row]["bbox"])) for row in DROPPED}
    renamed = {(entries[row]["image_id"], tuple(entries[row]["bbox"])) for row in RENAMED}
    content["annotations"] = [entry for row, entry in enumerate(entries) if row not in DROPPED]
    path.write_text(json.dumps(content))

    parts = [f"data.{part}.{key}" for part in ("train", "val") for key in ("images", "annotations")]
    places = ["train", "annotations/train.json", "val", "annotations/val.json"]
    overrides = [f"{key}={place}" for key, place in zip(parts, places, strict=True)]
    run = tmp_path / "run"
    run_command(
        "train",
        *TINY,
        *WITHOUT_PICTURES,
        f"data.root={tmp_path}",
        *overrides,
        "trainer.max_epochs=12",
        f"run_folder={run}",
    )
    table = load_annotations(path, tmp_path / "train")
    found = find_objects(load_detector(run), table, run, tmp_path / "found")
    suggestions = find_label_errors(found.boxes, found.rows)

    wrong_class = [s for s in suggestions if s.kind == "wrong class"][:8]
    hits = sum((s.image_id, s.label_box) in renamed for s in wrong_class)
    missing = [s for s in suggestions if s.kind == "missing box"][:8]
    centres = {(image_id, *np.add(box[:2], np.divide(box[2:], 2))) for image_id, box in dropped}
    near = [
        any(
            s.image_id == image_id
            and np.hypot(s.found_box[0] + s.found_box[2] / 2 - x, s.found_box[1] + s.found_box[3] / 2 - y) < 6
            for image_id, x, y in centres
        )
        for s in missing
    ]
    print(
        hits,
        near,
        [(s.kind, round(s.suspicion, 2)) for s in suggestions[:20]],
        json.loads((run / "metrics.json").read_text())["AP"],
    )
    assert hits >= 6
    assert sum(near) >= 4
