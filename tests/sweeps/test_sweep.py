"""``python train.py -m sweep=...``: killed, repeated, pruned, with trials that fail."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.callbacks.pruning import Pruning
from tests.running import TINY, WITHOUT_PICTURES, last_line, of_set, run_command, run_script, start_script
from tests.support import write_coco

pytest.importorskip("optuna", reason="Optuna is not installed")
pytestmark = pytest.mark.slow


def settings(folder: Path, *overrides: str) -> list[str]:
    """What a sweep in a folder is started with."""
    data = folder / "set"
    if not data.exists():
        write_coco(data, num_images=8)
    return ["-m", *TINY, *WITHOUT_PICTURES, "recipe.total_batch_size=8", *of_set(data), "sweep=grid", *overrides]


def trials(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "runs" / "sweeps" / name / "trials.csv").open() as file:
        return sorted(csv.DictReader(file), key=lambda trial: int(trial["trial"]))


def test_a_killed_grid_goes_on_within_its_interrupted_trial(tmp_path: Path) -> None:
    grid = settings(tmp_path, "trainer=cpu", "trainer.max_epochs=3", "recipe.learning_rate=1e-4,-1,2e-4")
    sweep = tmp_path / "runs" / "sweeps" / "nano_grid"
    process = start_script("train.py", *grid, folder=tmp_path, own_session=True)
    last, history = (sweep / "2" / name for name in ("checkpoints/last.ckpt", "history.json"))
    while process.poll() is None and not (last.exists() and history.exists()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    output, errors = process.communicate()
    assert history.exists(), output[-2000:] + errors[-2000:]
    epochs = json.loads(history.read_text())
    epochs[0]["from the first start"] = 1
    history.write_text(json.dumps(epochs))

    output = run_command("train", *grid, folder=tmp_path)
    assert [(t["state"], t["epochs"]) for t in trials(tmp_path, "nano_grid")] == [
        ("complete", "3"),
        ("failed", "0"),
        ("complete", "3"),
    ]
    assert "trial 1 failed: " in output
    assert "recipe.learning_rate is -1" in output
    epochs = json.loads(history.read_text())
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2]
    assert "from the first start" in epochs[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "set"]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {".locks", "0", "1", "2"}
    for trial in ("0", "2"):
        assert (sweep / trial / "metrics.json").exists()

    assert "begun with other settings (trainer.max_epochs: 3 before, 2 now)" in run_command(
        "train", *grid, "trainer.max_epochs=2", folder=tmp_path, expect=2
    )


def test_all_processes_of_a_pruned_trial_stop_after_the_same_epoch(tmp_path: Path) -> None:
    pruned = settings(
        tmp_path,
        "trainer=ddp_cpu",
        "trainer.max_epochs=3",
        "recipe.weight_decay=choice(1e-5)",
        "sweep.pruner._target_=optuna.pruners.ThresholdPruner",
        "+sweep.pruner.lower=2",  # more than any AP
    )
    output = run_script("train.py", *pruned, folder=tmp_path)
    (trial,) = trials(tmp_path, "nano_grid")
    assert (trial["state"], trial["epochs"]) == ("pruned", "1")
    assert "1 of 1 trials pruned: 1 of 3 epochs, 67% saved" in output
    folder = tmp_path / "runs" / "sweeps" / "nano_grid"
    assert len(json.loads((folder / "0" / "history.json").read_text())) == 1
    assert (folder / "0" / "metrics.json").exists()


def test_trials_that_a_launcher_runs_at_once_leave_a_folder_each_and_a_bad_value_fails_alone(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="the launcher for joblib is not installed")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.parallel=3"]
    three = settings(tmp_path, "trainer=cpu", "trainer.max_epochs=1", *launcher, "augment=light,lite,dynamic")
    output = run_script("train.py", *three, folder=tmp_path)
    states = [(trial["augment"], trial["state"]) for trial in trials(tmp_path, "nano_grid")]
    assert states == [("light", "complete"), ("lite", "failed"), ("dynamic", "complete")]
    assert "trial 1 failed: In 'train': Could not find 'augment/lite'" in output
    sweep = tmp_path / "runs" / "sweeps" / "nano_grid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "set"]
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {".locks", "0", "2"}
    assert all((sweep / trial / "train.log").exists() for trial in ("0", "2"))


@pytest.mark.parametrize(
    ("varied", "said"),
    [
        ("lr=1,2", "there is no key 'lr': did you mean 'recipe.learning_rate'?"),
        ("+lr=1,2", "there is no key 'lr'"),
        ("+sweep.space.lr=1,2", "'+sweep.space.lr' is a setting of the sweep itself"),
    ],
)
def test_a_sweep_over_what_nothing_reads_begins_no_trial(tmp_path: Path, varied: str, said: str) -> None:
    output = run_command("train", *settings(tmp_path, "trainer=cpu", varied), folder=tmp_path, expect=2)
    assert last_line(output).startswith(f"error: {said}")
    assert not (tmp_path / "runs").exists()


def test_trials_in_which_nothing_could_be_measured_have_failed(tmp_path: Path) -> None:
    grid = settings(tmp_path, "trainer=cpu", "trainer.max_epochs=1", "recipe.learning_rate=1e-4,2e-4")
    content = json.loads((tmp_path / "set" / "annotations.json").read_text())
    (tmp_path / "set" / "bare.json").write_text(json.dumps({**content, "annotations": []}))
    output = run_command("train", *grid, "data.val.annotations=bare.json", folder=tmp_path)
    assert [(t["state"], t["AP"]) for t in trials(tmp_path, "nano_grid")] == [("failed", "")] * 2
    assert "trial 1 failed: nothing was measured in validation, so there is no AP" in output


def test_a_sweep_without_multirun_is_sent_to_it() -> None:
    with pytest.raises(UserError, match=r"python train\.py -m sweep="):
        Pruning("runs/sweeps/nano_grid", trial=None, pruner=None)
