"""Running the contenders of `benchmarks.accuracy`, and keeping what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy.contenders import Command, Contender, Training

LONG = 120
"""Epochs of a run that is as long as runs are, of which the pace is taken."""

_SECONDS_BETWEEN_LOOKS = 0.25
_TRIES = 3

Record = dict[str, Any]


class Validation(NamedTuple):
    """One validation of a training.

    Attributes:
        seconds: from the start of the process.
        epochs: before it.
        ap: in percent.
    """

    seconds: float
    epochs: int
    ap: float


@dataclass(frozen=True)
class Calibration:
    """How long a contender takes on a set.

    Attributes:
        epoch_seconds: an epoch with its share of a validation.
        other_seconds: start and end of a run.
        interval: epochs from one validation to the next.
    """

    epoch_seconds: float
    other_seconds: float
    interval: int

    @classmethod
    def of(cls, long: list[Validation], end_seconds: float) -> Calibration:
        """From the first two validations of a long run; the first epoch has the warming up of everything in it.

        Args:
            long: the validations.
            end_seconds: what a run takes after its last validation.
        """
        first, second = long[:2]
        interval = second.epochs - first.epochs
        pace = max((second.seconds - first.seconds) / interval, _SECONDS_BETWEEN_LOOKS)
        return cls(pace, max(first.seconds - first.epochs * pace, 0.0) + end_seconds, interval)

    def epochs_within(self, minutes: float) -> int:
        """The most epochs that fit, at least one. The last of them is one that is validated."""
        most = max(1, int((60 * minutes - self.other_seconds) / self.epoch_seconds))
        return most - most % self.interval if most > self.interval else most


def calibrate(contender: Contender, training: Training, threads: int, minutes: float) -> Calibration:
    """Measure how long a contender takes, by a whole run of one epoch and the beginnings of longer ones.

    A contender may validate more often in a shorter run. Where it does not do so after each epoch, the pace is taken
    again of a run as long as the one that is planned.

    Args:
        contender: to measure.
        training: of any length.
        threads: of the process.
        minutes: that runs are to fit in.

    Raises:
        RuntimeError: if a run fails.
    """
    seconds, curve = train(contender, _of_length(training, 1), threads)
    if not curve:
        raise RuntimeError("it was not validated, so that its pace cannot be told")
    end_seconds, epochs = seconds - curve[-1].seconds, LONG
    for _ in range(_TRIES):
        _, curve = train(contender, _of_length(training, epochs), threads, stop_after=2)
        if len(curve) < 2:
            raise RuntimeError(f"it was not validated twice in {epochs} epochs, so that its pace cannot be told")
        calibration = Calibration.of(curve, end_seconds)
        planned = calibration.epochs_within(minutes)
        if calibration.interval == 1 or planned < 2 or planned == epochs:
            break
        epochs = planned
    return calibration


def _of_length(training: Training, epochs: int) -> Training:
    """The same training of another length, in a folder of its own."""
    folder = training.folder / str(epochs)
    folder.mkdir()
    return replace(training, epochs=epochs, folder=folder)


class Results:
    """The finished runs and calibrations, one JSON object a line.

    Args:
        path: the file; made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """All lines. One that an interruption has cut off is left out."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                print(f"left out, as it is not whole: {line[:60]}...", file=sys.stderr)
        return found

    def find(self, wanted: Record) -> Record | None:
        """The line that has all of these values, or None."""
        return next((it for it in self.read() if all(it.get(key) == value for key, value in wanted.items())), None)

    def add(self, record: Record) -> None:
        """Append a line, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_off = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a") as file:
            file.write("\n" * cut_off + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def train(
    contender: Contender, training: Training, threads: int, stop_after: int | None = None
) -> tuple[float, list[Validation]]:
    """Train in a new process, and look for its validations meanwhile.

    Args:
        contender: who trains.
        training: what.
        threads: of the process.
        stop_after: end the process after so many validations; None: let it end.

    Returns:
        Seconds of the process, and its validations.

    Raises:
        RuntimeError: if it fails, with the end of its log.
    """
    command: Command = contender.command(training)
    environment = {
        **os.environ, **command.environment, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": "",
        "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    log = training.folder / "log.txt"
    curve: list[Validation] = []
    with log.open("w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command.arguments, cwd=command.folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            while True:
                ended = _wait(process)
                seconds = time.perf_counter() - began
                found = contender.validations(training)[len(curve) :]
                curve += [Validation(round(seconds, 2), *validation) for validation in found]
                if stop_after is not None and len(curve) >= stop_after:
                    return seconds, curve
                if ended:
                    break
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"status {process.returncode}; {log} ends in:\n{tail}")
    return seconds, curve


def _wait(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended by now or after a moment."""
    try:
        process.wait(_SECONDS_BETWEEN_LOOKS)
    except subprocess.TimeoutExpired:
        return False
    return True
