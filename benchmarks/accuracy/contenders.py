"""What `benchmarks.accuracy` asks of a project that it compares, and this project as one of them.

A contender trains RT-DETRv2 from random weights with its own defaults for everything but image size, batch size, length
and seed, on the CPU.
"""

# ruff: noqa: D102 (the base class says it)

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy.sets import DataSet

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Training:
    """One run of one contender.

    Attributes:
        data: what is trained on.
        model: ``r18vd`` or ``nano``.
        size: side of the square images in pixels.
        batch: batch size.
        epochs: length.
        seed: random seed.
        folder: new folder that everything is written to.
    """

    data: DataSet
    model: str
    size: int
    batch: int
    epochs: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Command:
    """A process to start.

    Attributes:
        arguments: program and arguments.
        folder: working directory.
        environment: variables beside those of this process.
    """

    arguments: Sequence[str]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)


class Contender:
    """A project that trains detectors.

    Attributes:
        name: what the results call it.
        models: names of the models that it has.
    """

    name: str
    models: tuple[str, ...]

    def command(self, training: Training) -> Command:
        """What trains, with all files that it needs."""
        raise NotImplementedError

    def validations(self, training: Training) -> list[tuple[int, float]]:
        """Of each validation so far the epochs before it, and AP in percent as the project measures it."""
        raise NotImplementedError

    def final(self, training: Training) -> float:
        """AP of the model that the finished run leaves as its best, in percent."""
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """What took part, by name."""
        raise NotImplementedError

    def steps_per_epoch(self, data: DataSet, batch: int) -> int:
        """Optimizer steps of an epoch: all leave out images that do not fill a last batch."""
        return max(1, len(data.train) // batch)


class Ours(Contender):
    """This project, or another checkout of it.

    Args:
        name: what the results call it.
        checkout: its folder.
        overrides: settings that differ from the defaults.
    """

    models = ("r18vd", "nano")

    def __init__(self, name: str = "ours", checkout: Path = ROOT, overrides: Sequence[str] = ()) -> None:
        self.name, self.checkout, self.overrides = name, checkout.resolve(), tuple(overrides)

    def command(self, training: Training) -> Command:
        train, val = training.data.train, training.data.val
        settings = {
            "model": training.model,
            "model.image_size": f"[{training.size},{training.size}]",
            "model.pretrained": "null",
            "data": "coco",
            "data.root": train.annotations.parent.parent,
            "data.train.images": train.images,
            "data.train.annotations": train.annotations,
            "data.val.images": val.images,
            "data.val.annotations": val.annotations,
            "recipe.total_batch_size": training.batch,
            "trainer": "cpu",
            "trainer.max_epochs": training.epochs,
            "seed": training.seed,
            "run_folder": training.folder / "run",
        }
        overrides = [*self.overrides, *(f"{key}={value}" for key, value in settings.items())]
        python_path = {"PYTHONPATH": str(self.checkout)}  # before an installed rtdetrv2_train
        return Command([sys.executable, "train.py", *overrides], self.checkout, python_path)

    def validations(self, training: Training) -> list[tuple[int, float]]:
        path = training.folder / "run" / "history.json"
        history = json.loads(path.read_text()) if path.exists() else []
        return [(entry["epoch"] + 1, 100 * max(entry["val/AP"], 0.0)) for entry in history if "val/AP" in entry]

    def final(self, training: Training) -> float:
        # computed by a faster program whose numbers equal pycocotools', which tests/evaluation checks
        metrics = json.loads((training.folder / "run" / "metrics.json").read_text())
        return 100 * (metrics["AP"] or 0.0)

    def versions(self) -> dict[str, str]:
        return {"commit": commit(self.checkout), **packages(sys.executable, "torch")}


def json_lines(path: Path) -> list[Any]:
    """What the lines of a file hold. A last line that is still being written is left out."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def call(arguments: Sequence[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end.

    Returns:
        What it printed.

    Raises:
        RuntimeError: if it fails, with the end of what it said.
    """
    variables = {**os.environ, **(environment or {})}
    result = subprocess.run(arguments, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{arguments[0]} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def from_anywhere(program: str) -> str:
    """A program by a path that any working directory leaves valid. Links stay: they tell environments apart."""
    return str(Path(program).absolute()) if os.sep in program else program


def packages(python: str, *names: str) -> dict[str, str]:
    """Versions of those packages that an environment has."""
    program = (
        "import json, sys\nfrom importlib.metadata import distributions\n"
        "found = {it.metadata['Name'].lower().replace('_', '-'): it.version for it in distributions()}\n"
        "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
    )
    versions: dict[str, str] = json.loads(call([python, "-c", program, *names], ROOT))
    return versions


def commit(folder: Path) -> str:
    """The commit of a checkout, with ``+`` where files differ from it; empty where it is none."""
    git = ("git", "-C", str(folder))
    found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    if found.returncode:
        return ""
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() + "+" * bool(changed.stdout.strip())
