"""Evaluation of a model on annotations whose classes are not quite its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rtdetrv2_train import load_detector, predict_source
from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.commands import reporting
from tests.running import last_line, run_command
from tests.support import write_coco

pytestmark = pytest.mark.slow

Evaluate = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(scope="module")
def small_set(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and as their annotations some of what the model of made-up weights sees in them, a little smaller."""
    folder = write_coco(tmp_path_factory.mktemp("small"), 6)
    detector = load_detector(model_folder, device="cpu")
    options = {"formats": ["coco"], "threshold": 0.0, "annotations": folder / "annotations.json"}
    content = json.loads((folder / "annotations.json").read_text())
    content["categories"] = [{"id": id_, "name": name} for id_, name in ((3, "red"), (5, "green"), (7, "blue"))]
    (folder / "annotations.json").write_text(json.dumps(content))
    predict_source(detector, folder / "images", folder, **options)
    results = json.loads((folder / "predictions.json").read_text())
    content["annotations"] = [
        {"id": number, "image_id": result["image_id"], "category_id": result["category_id"]}
        | {"bbox": [*result["bbox"][:2], 0.8 * result["bbox"][2], result["bbox"][3]]}
        for number, result in enumerate(results[::40], start=1)
    ]
    assert {entry["category_id"] for entry in content["annotations"]} == {3, 5, 7}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def evaluate(model_folder: Path, small_set: Path, tmp_path: Path) -> Evaluate:
    """Evaluates on the small set with other categories, annotations or checkpoint; gives metrics and output."""

    def run(
        ids: dict[str, int],
        checkpoint: Path = model_folder,
        expect: int = 0,
        *overrides: str,
        images: int = 6,
        boxes: int = 99,
    ) -> tuple[dict[str, Any], str]:
        content = json.loads((small_set / "annotations.json").read_text())
        content["images"] = content["images"][:images]
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] <= images][:boxes]
        old = {category["id"]: category["name"] for category in content["categories"]}
        by_name = {name.strip().lower(): number for name, number in ids.items()}
        content["annotations"] = [
            {**entry, "category_id": by_name[old[entry["category_id"]]]}
            for entry in content["annotations"]
            if old[entry["category_id"]] in by_name
        ]
        content["categories"] = [{"id": number, "name": name} for name, number in ids.items()]
        (small_set / "other.json").write_text(json.dumps(content))
        data = [f"data.root={small_set}", "data.val.images=images", "data.val.annotations=other.json"]
        out = run_command(
            "eval",
            f"checkpoint={checkpoint}",
            "model=nano",
            *data,
            "data.num_workers=0",
            "trainer=cpu",
            "pictures=1",
            *overrides,
            f"run_folder={tmp_path}",
            expect=expect,
        )
        return (json.loads((tmp_path / "metrics.json").read_text()) if expect == 0 else {}), out

    return run


OWN = {"red": 3, "green": 5, "blue": 7}


@pytest.mark.parametrize(
    "ids",
    [
        {"red": 7, "green": 3, "blue": 5},
        {"blue": 0, "red": 1, "green": 2},
        {"Red": 3, " green": 5, "BLUE": 7},
        {"red": 3, "green": 5, "blue": 7, "purple": 4},
    ],
    ids=["permuted", "counted from 0", "other case and blanks", "one more"],
)
def test_classes_are_those_of_their_names_whatever_their_ids(evaluate: Evaluate, ids: dict[str, int]) -> None:
    own, _ = evaluate(OWN)
    assert 0.01 < own["AP"] < 0.99
    assert [of_class["name"] for of_class in own["per_class"]] == ["red", "green", "blue"]
    assert evaluate(ids)[0] == own


def test_a_class_that_the_annotations_lack_is_measured_on_nothing(evaluate: Evaluate) -> None:
    own, _ = evaluate(OWN)
    fewer, out = evaluate({"red": 3, "blue": 4})
    red, green, blue = (of_class["AP"] for of_class in fewer["per_class"])
    assert (red, green, blue) == (own["per_class"][0]["AP"], None, own["per_class"][2]["AP"])
    assert fewer["AP"] == pytest.approx((red + blue) / 2)
    assert re.search(r"green +│ +\u2013 │", out)


def test_annotations_of_other_classes_are_left_out_in_one_line(evaluate: Evaluate) -> None:
    _, out = evaluate({"red": 3, "green": 5, "blue": 7, "purple": 4})
    (line,) = (line for line in out.splitlines() if "are left out" in line)
    assert line.endswith("are left out: 'purple' (id 4)")
    _, out = evaluate({"mauve": 3, "purple": 4}, expect=2)
    assert "have no class in common: 'mauve' (id 3), 'purple' (id 4) here, 'red' (id 3), " in last_line(out)


def test_weights_without_names_have_the_classes_of_the_file_or_given_ones(
    evaluate: Evaluate, model_folder: Path, tmp_path: Path
) -> None:
    own, _ = evaluate(OWN)
    nameless = tmp_path / "weights.pth"
    torch.save({"model": load_tensors(model_folder / "model.safetensors")}, nameless)
    assert evaluate(OWN, nameless)[0] == own
    _, out = evaluate({"red": 3}, nameless, 2)
    assert "has 3 classes, but it does not name them, and" in last_line(out)
    only, _ = evaluate({"red": 3}, nameless, 0, "class_names=[red,green,blue]")
    assert only["AP"] == own["per_class"][0]["AP"]


def test_a_part_of_the_images_is_measured_on_what_was_looked_at(
    evaluate: Evaluate, model_folder: Path, tmp_path: Path
) -> None:
    fewer, _ = evaluate(OWN, images=4)
    limits = ["trainer.limit_val_batches=2", "data.eval_batch_size=2"]
    part, out = evaluate(OWN, model_folder, 0, *limits)
    assert part == {**fewer, "all_images": 6}
    assert fewer["images"] == part["images"] == 4
    assert "measured on 4 of 6 images (trainer.limit_val_batches)" in out
    assert "4 images" in (tmp_path / "report.html").read_text()
    assert evaluate(OWN, model_folder, 0, "trainer.limit_val_batches=9")[0]["all_images"] == 6


def test_many_objects_of_a_class_in_an_image_are_said_and_can_be_measured(
    evaluate: Evaluate, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = evaluate(OWN)
    assert "evaluation.max_detections" not in out
    monkeypatch.setattr("rtdetrv2_train.evaluation.tables.BENCHMARK_LIMIT", own["most_boxes"] - 1)
    _, out = evaluate(OWN)
    assert f"an image has {own['most_boxes']} boxes of one class" in out
    more, out = evaluate(OWN, model_folder, 0, "evaluation.max_detections=250")
    limit = {"max_detections": 250, "AP_max_detections": None, "AR_max_detections": None}
    assert more | limit == own | limit
    assert more["AP_max_detections"] >= own["AP"]
    assert "250 detections per class and image" in out
    _, out = evaluate(OWN, model_folder, 2, "evaluation.max_detections=80")
    assert "evaluation.max_detections=80: give a whole number above" in last_line(out)


def test_annotations_without_a_box_give_no_numbers_and_say_so(
    evaluate: Evaluate, small_set: Path, tmp_path: Path
) -> None:
    metrics, out = evaluate(OWN, boxes=0)
    assert metrics["AP"] is metrics["AR100"] is None
    assert "has no box of the classes that are known: AP cannot be measured" in out
    assert "-1" not in "".join(line for line in out.splitlines() if "│" in line)


def test_numbers_that_were_measured_stay_where_the_report_fails(
    model_folder: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no chart")

    monkeypatch.setattr(reporting, "report", fail)
    data = [f"data.root={small_set}", "data.val.images=images", "data.val.annotations=annotations.json"]
    new = tmp_path / "new"
    options = ["data.num_workers=0", "trainer=cpu", "pictures=1", f"run_folder={new}"]
    with pytest.raises(RuntimeError, match="no chart"):
        run_command("eval", f"checkpoint={model_folder}", "model=nano", *data, *options)
    assert json.loads((new / "metrics.json").read_text())["AP"] > 0
