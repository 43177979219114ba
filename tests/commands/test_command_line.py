"""What a user does at the command line: train, evaluate, resume, sweep, and go wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetrv2_train import build_model, load_detector, predict_source
from rtdetrv2_train.cli import COMMANDS
from tests.running import TINY, WITHOUT_PICTURES, last_line, of_set, run_command, run_script, start_script
from tests.support import ROOT, write_coco

ON_CPU = (*TINY, "trainer=cpu")
ON_TWO_RANKS = (*TINY, *WITHOUT_PICTURES, "trainer=ddp_cpu", "trainer.devices=2")


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def straight_run(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "straight"
    pictures = "callbacks.pictures.num_images=1"
    run_command("train", *ON_CPU, *of_set(small_set), pictures, "trainer.max_epochs=4", f"run_folder={folder}")
    return folder


def weights(checkpoint: Path, key: str) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)[key]


def test_a_run_leaves_what_its_folder_promises(straight_run: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.json",
        "history.json",
        "predictions.png",
        "report.html",
        "analysis.json",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "model/model.safetensors",
        "model/model.json",
    ):
        assert (straight_run / name).stat().st_size > 0, name
    assert list((straight_run / "tensorboard").glob("events*"))
    last = torch.load(straight_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12  # whether AP has improved or not
    history = json.loads((straight_run / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2, 3]
    best = max(epoch["val/AP"] for epoch in history)
    assert json.loads((straight_run / "metrics.json").read_text())["AP"] == pytest.approx(best, abs=1e-6)
    card = json.loads((straight_run / "model" / "model.json").read_text())
    assert card["class_names"] == ["red", "blue"]
    assert card["category_ids"] == [3, 7]


@pytest.mark.parametrize("what", ["run", "checkpoints/best.ckpt", "model"])
def test_evaluation_gives_the_numbers_of_training(straight_run: Path, tmp_path: Path, what: str) -> None:
    source = f"run={straight_run}" if what == "run" else f"checkpoint={straight_run / what}"
    output = run_command("eval", source, "trainer=cpu", f"run_folder={tmp_path}")
    assert "Worst classes" in output
    assert (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(
        (straight_run / "metrics.json").read_text()
    )


def test_predictions_in_coco_format_give_pycocotools_the_ap_of_the_evaluation(
    straight_run: Path, small_set: Path, tmp_path: Path
) -> None:
    annotations = small_set / "annotations.json"
    source = [f"run={straight_run}", f"source={small_set / 'images'}", f"annotations={annotations}", "device=cpu"]
    run_command("predict", *source, "threshold=0", "formats=[coco]", f"output={tmp_path}")
    results = json.loads((tmp_path / "predictions.json").read_text())
    # So short a run finds nothing: some of its own detections, a little smaller, are what is to be found.
    content = json.loads(annotations.read_text())
    content["annotations"] = [
        {"id": number, "image_id": r["image_id"], "category_id": r["category_id"], "iscrowd": 0}
        | {"bbox": [*r["bbox"][:2], 0.78 * r["bbox"][2], r["bbox"][3]], "area": 0.78 * r["bbox"][2] * r["bbox"][3]}
        for number, r in enumerate(results[::90], start=1)
    ]
    made = small_set / "made.json"
    made.write_text(json.dumps(content))
    evaluated = ["data.val.annotations=made.json", "trainer=cpu", f"run_folder={tmp_path / 'eval'}"]
    run_command("eval", f"run={straight_run}", *evaluated)
    truth = COCO(str(made))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "predictions.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert 0.01 < metrics["AP"] < 0.99
    for number, name in ((0, "AP"), (1, "AP50"), (8, "AR100")):
        assert evaluation.stats[number] == pytest.approx(metrics[name], abs=1e-4)


def test_the_recommended_threshold_goes_with_the_model(straight_run: Path, small_set: Path, tmp_path: Path) -> None:
    run = shutil.copytree(straight_run, tmp_path / "run")
    analysis, card = (json.loads((run / name).read_text()) for name in ("analysis.json", "model/model.json"))
    assert card["threshold"] == analysis["threshold"]
    (run / "analysis.json").write_text(json.dumps(analysis | {"threshold": 0.03}))  # so short a run knows none
    (run / "model" / "model.json").write_text(json.dumps(card | {"threshold": 0.0}))
    assert load_detector(run / "checkpoints" / "best.ckpt", device="cpu").threshold == 0.03
    moved = (run / "model").rename(tmp_path / "model")
    detector = load_detector(moved, device="cpu").fused()
    found = predict_source(detector, small_set / "images", tmp_path / "python", "csv")
    options = [f"source={small_set / 'images'}", f"output={tmp_path / 'command'}", "formats=csv", "device=cpu"]
    output = run_command("predict", f"checkpoint={moved}", *options)
    assert f"{found.objects} objects above 0.00 in 12 images" in output
    written = [(tmp_path / name / "predictions.csv").read_text() for name in ("python", "command")]
    assert written[0] == written[1]
    assert len(written[0].splitlines()) > 1


def test_a_callback_or_logger_that_is_null_is_left_out(small_set: Path, tmp_path: Path) -> None:
    without = ["callbacks.pictures=null", "callbacks.curves=null", "logger.tensorboard=null"]
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", f"run_folder={tmp_path / 'run'}"]
    run_command("train", *ON_CPU, *of_set(small_set), *without, *short)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "metrics.json" in left
    assert not {"predictions.png", "tensorboard"} & left


def test_tensorboard_gets_settings_curves_and_validation_losses(straight_run: Path) -> None:
    events = EventAccumulator(str(straight_run / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    assert {"val/predictions", "val/precision_and_recall", "val/f1_and_threshold"} <= set(events.Tags()["images"])
    assert {"val/loss", "val/loss_mal", "val/best_threshold", "final/AP"} <= set(events.Tags()["scalars"])
    settings = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"recipe.learning_rate" in settings


def test_evaluation_refuses_more_decoder_layers_than_there_are(straight_run: Path, tmp_path: Path) -> None:
    options = [f"run={straight_run}", "trainer=cpu", f"run_folder={tmp_path}"]
    message = last_line(run_command("eval", *options, "num_eval_layers=9", expect=2))
    assert "num_eval_layers=9: this model's decoder has layers 1 to 2" in message


@pytest.mark.slow
def test_a_resumed_run_ends_like_one_that_never_stopped(straight_run: Path, small_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    process = start_script(
        "train.py",
        *ON_CPU,
        *WITHOUT_PICTURES,
        *of_set(small_set),
        "trainer.max_epochs=4",
        f"run_folder={folder}",
        folder=tmp_path,
    )
    history = folder / "history.json"
    try:
        deadline = time.monotonic() + 200
        while not (history.exists() and len(json.loads(history.read_text())) >= 2) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    stopped_at = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 0 < stopped_at < 12
    run_command("train", f"resume={folder}")
    for key in ("state_dict", "current_model_state"):
        expected = weights(straight_run / "checkpoints" / "last.ckpt", key)
        found = weights(folder / "checkpoints" / "last.ckpt", key)
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    epochs = [epoch["epoch"] for epoch in json.loads(history.read_text())]
    assert epochs == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_run_that_ends_within_an_epoch_can_be_resumed_and_evaluated(small_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    run_command(
        "train", *ON_CPU, *of_set(small_set), "trainer.max_steps=2", "trainer.max_epochs=3", f"run_folder={folder}"
    )
    last = folder / "checkpoints" / "last.ckpt"
    averaged, current = weights(last, "state_dict"), weights(last, "current_model_state")
    assert any(not torch.equal(tensor, averaged[name]) for name, tensor in current.items())
    run_command("eval", f"checkpoint={last}", "trainer=cpu", *of_set(small_set), f"run_folder={tmp_path / 'eval'}")
    evaluated = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert evaluated == json.loads((folder / "metrics.json").read_text())
    run_command("train", f"resume={folder}", "trainer.max_steps=-1")
    history = json.loads((folder / "history.json").read_text())
    assert [(epoch["epoch"], epoch["step"]) for epoch in history] == [(0, 3), (1, 6), (2, 9)]


@pytest.mark.slow
def test_two_ranks_evaluate_like_one(straight_run: Path, tmp_path: Path) -> None:
    where = f"run_folder={tmp_path / 'eval'}"
    run_script("eval.py", f"run={straight_run}", "trainer=ddp_cpu", "trainer.devices=2", where, folder=tmp_path)
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text()) == json.loads(
        (straight_run / "metrics.json").read_text()
    )


@pytest.mark.slow
def test_two_ranks_train_and_one_without_boxes_or_with_fewer_batches_does_not_hang(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", num_images=9)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"] = content["annotations"][:1]  # all other images, and most batches of both ranks, have none
    (folder / "annotations.json").write_text(json.dumps(content))
    where = tmp_path / "here"
    where.mkdir()
    out = run_script(
        "train.py",
        *ON_TWO_RANKS,
        *of_set(folder),
        "trainer.max_epochs=1",
        "data.eval_batch_size=4",  # 5 images in two batches, 4 in one
        f"run_folder={where / 'two'}",
        folder=where,
    )
    assert "AP" in out
    assert [path.name for path in where.iterdir()] == ["two"]


def test_init_from_starts_from_the_weights_of_a_run(straight_run: Path, small_set: Path, tmp_path: Path) -> None:
    out = run_command(
        "train",
        *ON_CPU,
        *WITHOUT_PICTURES,
        *of_set(small_set),
        f"init_from={straight_run}",
        "trainer.max_epochs=1",
        "trainer.max_steps=1",
        "recipe.learning_rate=0",
        "recipe.weight_decay=0",
        f"run_folder={tmp_path}",
    )
    assert "started from pretrained weights" in out
    before = weights(straight_run / "checkpoints" / "best.ckpt", "state_dict")
    after = weights(tmp_path / "checkpoints" / "last.ckpt", "current_model_state")
    name = "model.decoder.dec_bbox_head.0.layers.2.weight"
    torch.testing.assert_close(after[name], before[name])


@pytest.mark.slow
def test_a_run_may_be_as_long_as_its_steps(small_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    dynamic = [*(option for option in ON_CPU if option != "augment=light"), *WITHOUT_PICTURES, *of_set(small_set)]
    steps = [
        "trainer.max_epochs=-1",
        "trainer.max_steps=10",
        "recipe.short_run.from_scratch_plain_epochs=1",
        f"run_folder={folder}",
    ]
    output = run_command("train", *dynamic, *steps)
    assert "nano at 64 x 64 for 10 steps" in output
    assert "auto settings for 10 steps" in output
    assert "a short run from scratch: photometric, zoom_out, iou_crop only until epoch 2 of 4" in output
    assert "photometric is off from epoch 2 of 4" in output
    assert "multiscale" not in output  # the model has none
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 10


def test_a_run_is_not_resumed_with_its_classes_in_another_order(
    straight_run: Path, small_set: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(straight_run, folder)
    content = json.loads((small_set / "annotations.json").read_text())
    content["categories"] = [{"id": 3, "name": "blue"}, {"id": 7, "name": "red"}]
    (small_set / "swapped.json").write_text(json.dumps(content))
    swapped = [f"data.{part}.annotations=swapped.json" for part in ("train", "val")]
    out = run_command("train", f"resume={folder}", *swapped, "trainer.max_epochs=5", expect=2)
    assert "resumed has the classes red, blue, but the data now has blue, red: " in last_line(out)


@pytest.mark.slow
def test_validation_on_a_part_chooses_no_best_checkpoint(small_set: Path, tmp_path: Path) -> None:
    part = ["trainer.limit_val_batches=1", "data.eval_batch_size=2", "trainer.max_epochs=2"]
    out = run_command("train", *ON_CPU, *of_set(small_set), *part, f"run_folder={tmp_path}")
    assert out.count("AP is that of 2 of 12 images, so that there is no best checkpoint by it") == 1
    assert "none, these are the last weights" in out
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    history = json.loads((tmp_path / "history.json").read_text())
    assert all("val_part/AP" in epoch and "val/AP" not in epoch for epoch in history)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["images"], metrics["all_images"]) == (2, 12)


@pytest.mark.slow
def test_nothing_to_measure_is_said_at_the_start_and_gives_no_numbers(small_set: Path, tmp_path: Path) -> None:
    content = json.loads((small_set / "annotations.json").read_text())
    (small_set / "bare.json").write_text(json.dumps({**content, "annotations": []}))
    options = ["data.val.annotations=bare.json", "trainer.max_epochs=2", f"run_folder={tmp_path}"]
    out = run_command("train", *ON_CPU, *of_set(small_set), *options)
    assert out.count("bare.json' has no box of the classes that are known: AP cannot be measured") == 1
    assert "there is no AP, as the ground truth has no box of these classes" in out
    assert "-100.0" not in out
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] is None
    assert not any("val/AP" in name for epoch in json.loads((tmp_path / "history.json").read_text()) for name in epoch)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert not any("AP" in tag for tag in events.Tags()["scalars"])
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["gradient_checkpointing=true"]])
def test_a_frozen_backbone_stays_to_the_last_bit(
    straight_run: Path, small_set: Path, tmp_path: Path, options: list[str]
) -> None:
    folder = tmp_path / "run"
    start = [
        f"init_from={straight_run / 'model'}",
        "freeze=backbone",
        "trainer.max_epochs=1",
        f"run_folder={folder}",
    ]
    output = run_command("train", *ON_CPU, *WITHOUT_PICTURES, *of_set(small_set), *start, *options)
    assert "not trained" in output
    run_command("train", f"resume={folder}", "trainer.max_epochs=2")
    before = load_file(straight_run / "model" / "model.safetensors")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6
    for weights_now in (last["state_dict"], last["current_model_state"]):
        moved = {
            name.split(".")[0] for name, tensor in before.items() if not weights_now[f"model.{name}"].equal(tensor)
        }
        assert moved == {"encoder", "decoder"}
    trained = sum(len(group["params"]) for group in last["optimizer_states"][0]["param_groups"])
    assert trained == sum(1 for name, _ in build_model("nano", 2).named_parameters() if not name.startswith("backbone"))


def test_freezing_what_nothing_was_loaded_into_is_refused(small_set: Path, tmp_path: Path) -> None:
    options = [*ON_CPU, *of_set(small_set), f"run_folder={tmp_path}", "freeze=backbone"]
    line = last_line(run_command("train", *options, expect=2))
    assert line == "error: freeze=backbone would keep random weights: start from trained ones, init_from="


@pytest.mark.slow
def test_a_learning_rate_of_0_points_to_freezing(small_set: Path, tmp_path: Path) -> None:
    rule = "+model.parameter_rules.backbone={match: '^backbone', learning_rate: 0}"
    options = [*ON_CPU, *WITHOUT_PICTURES, *of_set(small_set), f"run_folder={tmp_path / 'run'}"]
    output = run_command("train", *options, rule, "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    assert "still computes gradients and moves BatchNorm statistics" in output


def test_a_missing_data_set_is_named() -> None:
    line = last_line(run_command("train", "model=nano", "data.root=datasets/nowhere", expect=2))
    assert line.startswith("error: no data set at 'datasets/nowhere'")
    assert "datasets/README.md" in line


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("trainer.max_epoch=3", "trainer.max_epochs"),
        ("recipe.learning_rat=1", "recipe.learning_rate"),
        ("model=r50v", "r50vd"),
        ("experiment=quikstart", "quickstart"),
    ],
)
def test_a_misspelt_override_names_the_nearest_right_one(override: str, right: str) -> None:
    out = run_command("train", override, expect=2)
    assert last_line(out).startswith("error: ")
    assert f"did you mean '{right}'" in last_line(out)


def test_an_annotation_file_that_is_not_coco_is_named(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    (folder / "annotations.json").write_text('{"shapes": []}')
    line = last_line(run_command("train", *ON_CPU, *of_set(folder), f"run_folder={tmp_path / 'run'}", expect=2))
    assert "annotations.json" in line
    assert line.startswith("error: ")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    folder = write_coco(tmp_path)
    (folder / "images" / "5.png").unlink()
    line = last_line(run_command("train", *ON_CPU, *of_set(folder), f"run_folder={tmp_path / 'run'}", expect=2))
    assert "5.png" in line
    assert line.startswith("error: ")


def test_a_checkpoint_of_another_model_is_recognised(straight_run: Path, small_set: Path, tmp_path: Path) -> None:
    line = last_line(
        run_command(
            "train",
            "model=r18vd",
            "trainer=cpu",
            *of_set(small_set),
            f"init_from={straight_run}",
            f"run_folder={tmp_path}",
            expect=2,
        )
    )
    assert line.startswith("error: ")
    assert "looks like an unknown model with a ResNet-vd backbone" in line


def test_unreachable_pretrained_weights_name_the_three_other_ways(small_set: Path, tmp_path: Path) -> None:
    line = last_line(
        run_command(
            "train",
            "model=r18vd",
            "model.pretrained=http://127.0.0.1:9/backbone.pth",
            "trainer=cpu",
            *of_set(small_set),
            f"run_folder={tmp_path}",
            expect=2,
        )
    )
    for way in ("127.0.0.1", "timm:", "/path/file.pth", "model.pretrained=null"):
        assert way in line


def test_a_batch_size_that_cannot_be_shared_proposes_others(small_set: Path) -> None:
    line = last_line(run_command("train", *ON_CPU, *of_set(small_set), "trainer.accumulate_grad_batches=3", expect=2))
    assert "use 3 or 6" in line


DOORS = [
    f"{command}.py" for command in COMMANDS if command != "inspect"
]  # a file of that name would hide Python's module


@pytest.mark.parametrize("door", [*DOORS, "-m rtdetrv2_train inspect", "-m rtdetrv2_train eval"])
def test_every_door_starts_its_command_from_any_folder(door: str, tmp_path: Path) -> None:
    given = {"train.py": ["init_from=nowhere"], "convert.py": ["source=nowhere", "output=new"]}
    line = last_line(run_script(door, *given.get(door, ["run=nowhere"]), folder=tmp_path, expect=2))
    assert line.startswith("error: ")
    assert "nowhere" in line


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_needs_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, runpy; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'albumentations', 'cv2', 'pycocotools'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True, capture_output=True)
