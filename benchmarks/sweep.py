"""A sweep of twelve trials, killed in the fifth and resumed: no trial is lost or run twice. Measures pruning, too.

    python benchmarks/sweep.py FOLDER                # some five minutes on one core
    python benchmarks/sweep.py FOLDER --workers 2

The trials fine-tune a small model. It is trained first, in the subfolder ``base``, and a later call uses it again. The
sweep with its table and charts stays in the folder, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_TRIALS = 12
_EPOCHS = 8
_KILLED_IN = 4  # the fifth
_COMMON = """
    trainer=cpu model=nano model.image_size=[64,64] augment=light recipe.total_batch_size=8
    data=shapes data.drawn_size=64 data.num_val=96 data.num_workers=0
"""
_BASE = f"{_COMMON} data.root=base_shapes data.num_train=640 trainer.max_epochs=12 run_folder=base".split()
_SWEEP = f"""
    -m {_COMMON} data.root=shapes data.num_train=128 data.drawing_seed=1 trainer.max_epochs={_EPOCHS} init_from=base
    sweep=optuna sweep.trials={_TRIALS} sweep.space=null recipe.learning_rate_factor=tag(log,interval(0.01,100))
    recipe.weight_decay=tag(log,interval(1e-5,0.1)) recipe.max_gradient_norm=choice(0.1,1,10)
""".split()


def main() -> None:
    """Run the sweep, kill it, resume it, check the trials, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes that work on the sweep")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    sweep = folder / "runs" / "sweeps" / "nano_optuna"
    assert not sweep.exists(), f"{sweep} exists from an earlier call: remove it"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "base" / "metrics.json").exists():
        assert _start(folder, "base", _BASE).wait() == 0, f"see {folder}/base.txt"

    began = time.monotonic()
    workers = [_start(folder, f"killed_{number}", _SWEEP) for number in range(arguments.workers)]
    _wait_for_epoch_of(sweep / str(_KILLED_IN), workers)
    for worker in workers:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    print(f"killed in trial {_KILLED_IN} after {_epochs_in(sweep / str(_KILLED_IN))} epochs")
    workers = [_start(folder, f"resumed_{number}", _SWEEP) for number in range(arguments.workers)]
    assert all(worker.wait() == 0 for worker in workers), f"see {folder}/*.txt"
    seconds = time.monotonic() - began

    with (sweep / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    folders = sorted(int(path.name) for path in sweep.iterdir() if path.name.isdigit())
    assert folders == sorted(int(trial["trial"]) for trial in trials) == list(range(_TRIALS)), folders
    values = {tuple(trial[name] for name in trial if name.startswith("recipe.")) for trial in trials}
    assert len(values) == _TRIALS, "two trials with the same values"
    run = sum(_epochs_in(sweep / str(number)) for number in folders)
    states = [trial["state"] for trial in trials]
    print(f"{len(trials)} trials, {len(values)} different: " + ", ".join(f"{states.count(s)} {s}" for s in set(states)))
    print(f"{run} epochs of {_TRIALS * _EPOCHS}: pruning saved {1 - run / (_TRIALS * _EPOCHS):.0%}")
    print(f"{seconds:.0f} s with {arguments.workers} workers; {sweep}")


def _start(folder: Path, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(_ROOT / "train.py"), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_for_epoch_of(run: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    while not _epochs_in(run):
        assert all(worker.poll() is None for worker in workers), "a worker ended too early"
        time.sleep(0.02)


def _epochs_in(run: Path) -> int:
    path = run / "history.json"
    try:
        return len(json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):  # not written yet, or being written
        return 0


if __name__ == "__main__":
    main()
