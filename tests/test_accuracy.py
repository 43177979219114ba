from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from benchmarks.accuracy.comparison import Comparison, Setting
from benchmarks.accuracy.contenders import Command, Contender, Ours, Training, json_lines
from benchmarks.accuracy.peers import authors_configuration
from benchmarks.accuracy.report import chart, tables
from benchmarks.accuracy.runs import LONG, Calibration, Results, Validation, calibrate, train
from benchmarks.accuracy.sets import DataSet, average_precision
from tests.support import composed

SETTING = Setting("nano", 64, 4, 1)

# An epoch writes one line; the second argument is how many there are.
_EPOCHS = """
import sys, time
with open(sys.argv[1], "a") as file:
    for epoch in range(int(sys.argv[2])):
        time.sleep(0.01)
        file.write(f"{epoch}\\n")
        file.flush()
"""


class Counter(Contender):
    """Trains nothing; AP after an epoch is its number, and in the end that of the last."""

    models = ("nano",)

    def __init__(self, name: str, started: list[tuple[str, str, int, int]], program: str = _EPOCHS) -> None:
        self.name, self.started, self.program = name, started, program

    def command(self, training: Training) -> Command:
        self.started.append((self.name, training.data.name, training.seed, training.epochs))
        arguments = [sys.executable, "-c", self.program, str(training.folder / "epochs"), str(training.epochs)]
        return Command(arguments, training.folder)

    def validations(self, training: Training) -> list[tuple[int, float]]:
        return [(epoch + 1, float(epoch)) for epoch in json_lines(training.folder / "epochs")]

    def final(self, training: Training) -> float:
        return self.validations(training)[-1][1]

    def versions(self) -> dict[str, str]:
        return {"counter": "1"}


def make_set(folder: Path, images: str = "{part}", annotations: str = "instances_{part}.json") -> DataSet:
    """Eight images to train on and two to validate on, a box in each, categories 3 and 7."""
    (folder / "annotations").mkdir(parents=True)
    for part, count in (("train", 8), ("val", 2)):
        place = folder / images.format(part=part)
        place.mkdir(exist_ok=True)
        for number in range(count):
            Image.new("RGB", (20, 10)).save(place / f"{part}{number}.png")
        content = {
            "images": [{"id": i, "file_name": f"{part}{i}.png", "width": 20, "height": 10} for i in range(count)],
            "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 3 + 4 * (i % 2), "bbox": [2, 2, 9, 6], "area": 54, "iscrowd": 0}
                for i in range(count)
            ],
        }
        (folder / "annotations" / annotations.format(part=part)).write_text(json.dumps(content))
    return DataSet.find(f"{folder.name}={folder}")


@pytest.mark.parametrize(
    ("images", "annotations"), [("{part}", "instances_{part}.json"), ("JPEGImages", "{part}.json")]
)
def test_a_set_is_found_by_its_folder(tmp_path: Path, images: str, annotations: str) -> None:
    data = make_set(tmp_path / "pets", images, annotations)
    assert (data.name, len(data.train), len(data.val)) == ("pets", 8, 2)
    assert list(data.val.classes.items()) == [(3, "dog"), (7, "cat")]
    assert data.val.images == tmp_path / "pets" / images.format(part="val")


def test_what_is_no_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not NAME=FOLDER"):
        DataSet.find(str(tmp_path))
    with pytest.raises(ValueError, match=r"instances_train\.json"):
        DataSet.find(f"nothing={tmp_path}")


def test_perfect_detections_have_an_ap_of_100_also_with_an_annotation_0_and_none_have_0(tmp_path: Path) -> None:
    data = make_set(tmp_path / "pets")
    boxes = data.val.content["annotations"]
    perfect = [{**{key: box[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5} for box in boxes]
    assert average_precision(data.val.annotations, perfect) == pytest.approx(100)
    assert average_precision(data.val.annotations, []) == 0


def test_a_run_is_as_long_as_the_measured_pace_allows() -> None:
    pace = Calibration.of([Validation(20, 1, 0.0), Validation(30, 2, 1.0)], end_seconds=5)
    assert (pace.epoch_seconds, pace.other_seconds) == (10, 15)
    assert pace.epochs_within(2) == 10
    assert pace.epochs_within(0.1) == 1


def test_a_run_ends_in_an_epoch_that_is_validated() -> None:
    pace = Calibration.of([Validation(40, 3, 0.0), Validation(70, 6, 1.0)], end_seconds=0)
    assert (pace.epoch_seconds, pace.other_seconds, pace.interval) == (10, 10, 3)
    assert [pace.epochs_within(minutes) for minutes in (0.5, 1, 2)] == [2, 3, 9]


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.jsonl")
    results.add({"set": "a", "seed": 0})
    with results.path.open("a") as file:
        file.write('{"set": "b", "se')
    results.add({"set": "c", "seed": 0})
    assert [record["set"] for record in results.read()] == ["a", "c"]
    assert results.find({"set": "c"}) == {"set": "c", "seed": 0}
    assert results.find({"set": "b"}) is None


def test_contenders_take_turns_and_what_is_finished_is_not_repeated(tmp_path: Path) -> None:
    sets = [make_set(tmp_path / "first"), make_set(tmp_path / "second")]
    started: list[tuple[str, str, int, int]] = []
    contenders: list[Contender] = [Counter("ours", started), Counter("theirs", started)]
    results = Results(tmp_path / "results.jsonl")
    comparison = Comparison(SETTING, {"steps": 7}, contenders, results, tmp_path / "runs")
    assert comparison.run(sets, [0, 1]) == 0
    turns = [(seed, data, name) for name, data, seed, _ in started]
    assert turns == [(s, d, n) for s in (0, 1) for d in ("first", "second") for n in ("ours", "theirs")]
    assert {epochs for *_, epochs in started} == {4}  # of two steps
    first = results.read()[0]
    assert (first["AP"], first["steps"], first["versions"]) == (3, 8, {"counter": "1"})
    assert [ap for _, ap in first["curve"]] == [0, 1, 2, 3]
    assert not list((tmp_path / "runs").iterdir())

    comparison.run(sets, [0, 1])
    assert len(started) == 8
    Comparison(SETTING, {"steps": 20}, contenders, results, tmp_path / "runs").run(sets[:1], [0])
    assert len(started) == 10


def test_in_equal_time_the_pace_is_measured_once_for_each_set(tmp_path: Path) -> None:
    started: list[tuple[str, str, int, int]] = []
    results = Results(tmp_path / "results.jsonl")
    for minutes in (1e-9, 2e-9):
        comparison = Comparison(SETTING, {"minutes": minutes}, [Counter("ours", started)], results, tmp_path / "runs")
        comparison.run([make_set(tmp_path / f"set{minutes}")], [0, 1])
    assert [record["kind"] for record in results.read()] == ["calibration", "run", "run"] * 2
    assert [epochs for *_, epochs in started] == [1, LONG, 1, 1] * 2


class Sparing(Counter):
    """Validates after every fourth epoch of a run of a hundred or more."""

    def validations(self, training: Training) -> list[tuple[int, float]]:
        every = super().validations(training)
        return every[3::4] if training.epochs >= 100 else every


def test_the_pace_is_that_of_a_run_as_long_as_the_planned_one(tmp_path: Path) -> None:
    started: list[tuple[str, str, int, int]] = []
    training = Training(make_set(tmp_path / "pets"), "nano", 64, 4, 1, 0, tmp_path)
    calibration = calibrate(Sparing("ours", started), training, threads=1, minutes=0.1)
    assert calibration.interval == 1
    lengths = [epochs for *_, epochs in started]
    assert lengths[:2] == [1, LONG]
    assert 2 <= lengths[2] < 100


def test_a_run_that_fails_is_told_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[tuple[str, str, int, int]] = []
    failing = Counter("theirs", started, "raise SystemExit('no such backbone')")
    results = Results(tmp_path / "results.jsonl")
    comparison = Comparison(SETTING, {"steps": 2}, [failing, Counter("ours", started)], results, tmp_path / "runs")
    assert comparison.run([make_set(tmp_path / "pets")], [0]) == 1
    assert "no such backbone" in capsys.readouterr().err
    assert [record["contender"] for record in results.read()] == ["ours"]
    assert comparison.run([DataSet.find(f"pets={tmp_path / 'pets'}")], [0]) == 1
    assert [name for name, *_ in started] == ["theirs", "ours", "theirs"]


def test_a_training_is_followed_while_it_lasts(tmp_path: Path) -> None:
    training = Training(make_set(tmp_path / "pets"), "nano", 64, 4, 3, 0, tmp_path)
    seconds, curve = train(Counter("ours", []), training, threads=1)
    assert [(it.epochs, it.ap) for it in curve] == [(1, 0), (2, 1), (3, 2)]
    assert all(0 < it.seconds <= seconds + 0.01 for it in curve)


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    assert json_lines(path) == []
    path.write_text('{"epoch": 0}\n{"epo')
    assert json_lines(path) == [{"epoch": 0}]


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_ours_trains_from_scratch_with_settings_that_exist(tmp_path: Path, recipe: str) -> None:
    training = Training(make_set(tmp_path / "pets"), "r18vd", 160, 8, 5, 3, tmp_path)
    program, *overrides = list(Ours(overrides=(f"recipe={recipe}",)).command(training).arguments)[1:]
    config = composed(*overrides)
    assert program == "train.py"
    assert (config.model.pretrained, config.model.name, list(config.data.image_size)) == (None, "r18vd", [160, 160])
    assert (config.trainer.max_epochs, config.trainer.accelerator, config.seed) == (5, "cpu", 3)
    assert (config.recipe.total_batch_size, config.recipe.reference_batch_size) == (8, 16)


def test_the_authors_configuration_is_theirs_but_for_set_size_and_length(tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "rtdetrv2"
    (folder / "include").mkdir(parents=True)
    resize = {"type": "Resize", "size": [640, 640]}
    loaders = {
        "train_dataloader": {"dataset": {"transforms": {"ops": [{"type": "Flip"}, dict(resize)]}}},
        "val_dataloader": {"dataset": {"transforms": {"ops": [dict(resize)]}}},
    }
    model = {"epoches": 120, "train_dataloader": {"dataset": {"transforms": {"policy": {"epoch": 117}}}}}
    (folder / "include" / "dataloader.yml").write_text(yaml.safe_dump(loaders))
    (folder / "rtdetrv2_r18vd_120e_coco.yml").write_text(yaml.safe_dump(model))
    training = Training(make_set(tmp_path / "pets"), "r18vd", 160, 8, 40, 0, tmp_path)

    configuration = authors_configuration(tmp_path, training)
    assert configuration["num_classes"] == 8  # categories are 3 and 7
    assert configuration["PResNet"] == {"pretrained": False}
    transforms = configuration["train_dataloader"]["dataset"]["transforms"]
    assert transforms == {"ops": [{"type": "Flip"}, {**resize, "size": [160, 160]}], "policy": {"epoch": 39}}
    assert configuration["train_dataloader"]["total_batch_size"] == 8
    assert configuration["val_dataloader"]["dataset"]["ann_file"] == str(training.data.val.annotations)


def run(contender: str, seed: int, ap: float, **other: Any) -> dict[str, Any]:
    """A finished run of 90 seconds."""
    return {
        "kind": "run", "contender": contender, "set": "pets", "seed": seed, "model": "r18vd", "size": 160, "batch": 8,
        "threads": 2, "budget": {"minutes": 1.5}, "seconds": 90, "steps": 1200, "AP": ap,
        "curve": [(40, ap / 2), (80, ap)], **other,
    }  # fmt: skip


def test_the_table_compares_runs_of_the_same_seed() -> None:
    runs = [
        run("authors", 0, 3), run("ours", 0, 10), run("ours", 1, 20), run("authors", 1, 5), run("libreyolo", 1, 21),
    ]  # fmt: skip
    assert tables([*runs, run("ours", 0, 7, budget={"steps": 1000})]) == [
        "r18vd, 160 x 160, batches of 8, 1.5 minutes, 2 threads, 2 seeds:",
        "",
        "| set | | AP | lowest to highest | beside ours | minutes | steps |",
        "|---|---|---|---|---|---|---|",
        "| pets | ours | 15.0 | 10.0 to 20.0 |  | 1.5 | 1,200 |",
        "| pets | LibreYOLO | 21.0 |  | +1.0 | 1.5 | 1,200 |",
        "| pets | authors | 4.0 | 3.0 to 5.0 | -11.0 | 1.5 | 1,200 |",
        "",
        "r18vd, 160 x 160, batches of 8, 1,000 steps, 2 threads, 1 seed:",
        "",
        "| set | | AP | lowest to highest | beside ours | minutes | steps |",
        "|---|---|---|---|---|---|---|",
        "| pets | ours | 7.0 |  |  | 1.5 | 1,200 |",
        "",
    ]


def test_the_chart_has_a_panel_for_each_set(tmp_path: Path) -> None:
    runs = [run(name, 0, 9, set=data) for data in ("a", "b", "c", "d", "e") for name in ("ours", "authors")]
    chart(runs, tmp_path / "chart.webp")
    with Image.open(tmp_path / "chart.webp") as picture:
        assert picture.format == "WEBP"
