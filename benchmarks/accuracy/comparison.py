r"""Accuracy of RT-DETRv2 trained from scratch by this project and others, at equal steps or in equal time.

    python -m benchmarks.accuracy raccoon=FOLDER neu=FOLDER --minutes 20 --seeds 0 1 --libreyolo PYTHON \
        --authors RT-DETR --authors-python PYTHON --before OTHER_CHECKOUT --results accuracy.jsonl
    python -m benchmarks.accuracy --results accuracy.jsonl --table --chart accuracy.webp

A set has annotations in COCO's format, ``annotations/instances_train.json`` and ``instances_val.json``, and images in
``train`` and ``val``. Each run is a process of its own, nothing runs beside it, and the contenders take turns: all of
them on the first set with the first seed, then on the second set, then with the second seed. A run is a whole number of
epochs, the nearest to ``--steps`` or the most that fit in ``--minutes``, and what counts of it is AP of the model that
it leaves as its best, by pycocotools on all detections. Time is that of the whole training process, with start,
validation and whatever else the project does by default. For ``--minutes`` a contender first shows on each set how long
it takes, in a run of one epoch and in the beginnings of longer ones.

A finished run is a line in ``--results`` and is not repeated, so a long comparison can be stopped at any time and go on
later; what is lost is the run that was under way.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.accuracy.contenders import Contender, Ours, Training
from benchmarks.accuracy.peers import Authors, LibreYolo
from benchmarks.accuracy.report import chart, tables
from benchmarks.accuracy.runs import Calibration, Record, Results, calibrate, train
from benchmarks.accuracy.sets import DataSet


@dataclass(frozen=True)
class Setting:
    """What all contenders have in common.

    Attributes:
        model: ``r18vd`` or ``nano``.
        size: side of the square images in pixels.
        batch: batch size.
        threads: of each process.
    """

    model: str
    size: int
    batch: int
    threads: int


class Comparison:
    """All runs, one after the other.

    Args:
        setting: what the contenders have in common.
        budget: length of a run: optimizer ``steps``, or ``minutes``.
        contenders: in the order in which they take turns.
        results: where finished runs are.
        folder: where runs write while they last.
    """

    def __init__(
        self,
        setting: Setting,
        budget: dict[str, float],
        contenders: list[Contender],
        results: Results,
        folder: Path,
    ) -> None:
        self.setting, self.budget, self.contenders = setting, budget, contenders
        self.results, self.folder = results, folder

    def run(self, sets: list[DataSet], seeds: list[int]) -> int:
        """Do what is left to do.

        Returns:
            The number of runs that failed; they are tried again next time.
        """
        failed = 0
        for seed in seeds:
            for data in sets:
                for contender in self.contenders:
                    wanted = {
                        "kind": "run", "contender": contender.name, "set": data.name, "seed": seed,
                        **asdict(self.setting), "budget": self.budget,
                    }  # fmt: skip
                    if self.results.find(wanted):
                        continue
                    try:
                        self._run(contender, data, seed, wanted)
                    except (RuntimeError, ValueError, OSError) as error:
                        failed += 1
                        print(f"{contender.name} on {data.name}, seed {seed}, failed: {error}", file=sys.stderr)
        return failed

    def _run(self, contender: Contender, data: DataSet, seed: int, wanted: Record) -> None:
        versions, epochs = contender.versions(), self._epochs(contender, data)
        steps_per_epoch = contender.steps_per_epoch(data, self.setting.batch)
        print(f"{time.strftime('%H:%M')} {data.name}, seed {seed}, {contender.name}: {epochs} epochs", flush=True)
        training = self._training(contender, data, seed, epochs)
        seconds, curve = train(contender, training, self.setting.threads)
        if not curve:
            raise RuntimeError("it was never validated")
        final = contender.final(training)
        record = {
            **wanted, "epochs": epochs, "steps": curve[-1].epochs * steps_per_epoch, "seconds": round(seconds, 1),
            "AP": round(final, 3), "curve": [(it.seconds, round(it.ap, 3)) for it in curve], "versions": versions,
        }  # fmt: skip
        self.results.add(record)
        shutil.rmtree(training.folder)
        print(f"{time.strftime('%H:%M')}   AP {final:.1f} after {seconds / 60:.1f} minutes", flush=True)

    def _epochs(self, contender: Contender, data: DataSet) -> int:
        if "steps" in self.budget:
            return max(1, round(self.budget["steps"] / contender.steps_per_epoch(data, self.setting.batch)))
        return self._calibration(contender, data).epochs_within(self.budget["minutes"])

    def _calibration(self, contender: Contender, data: DataSet) -> Calibration:
        """How long the contender takes on the set: as measured before, or measured now."""
        wanted = {
            "kind": "calibration", "contender": contender.name, "set": data.name, **asdict(self.setting),
            "budget": self.budget,
        }  # fmt: skip
        if found := self.results.find(wanted):
            return Calibration(found["epoch_seconds"], found["other_seconds"], found["interval"])
        print(f"{time.strftime('%H:%M')} {data.name}, {contender.name}: how long an epoch takes", flush=True)
        training = self._training(contender, data, 0, 1)
        measured = calibrate(contender, training, self.setting.threads, self.budget["minutes"])
        per_step = measured.epoch_seconds / contender.steps_per_epoch(data, self.setting.batch)
        self.results.add({**wanted, **asdict(measured), "step_seconds": per_step, "versions": contender.versions()})
        shutil.rmtree(training.folder)
        return measured

    def _training(self, contender: Contender, data: DataSet, seed: int, epochs: int) -> Training:
        folder = (self.folder / f"{data.name}_{seed}_{contender.name}").resolve()
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        folder.mkdir(parents=True)
        setting = self.setting
        return Training(data, setting.model, setting.size, setting.batch, epochs, seed, folder)


def main() -> None:
    """Compare, and print a table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the training under way ends too
    parser = _parser()
    arguments = parser.parse_args()
    results, failed = Results(arguments.results), 0
    if not arguments.table:
        if not arguments.sets or (arguments.steps is None) == (arguments.minutes is None):
            parser.error("give sets as NAME=FOLDER and one of --steps and --minutes, or --table for what is there")
        try:
            sets = [DataSet.find(given) for given in arguments.sets]
        except ValueError as error:
            parser.error(str(error))
        setting = Setting(arguments.model, arguments.size, arguments.batch, arguments.threads)
        budget = {key: value for key in ("steps", "minutes") if (value := getattr(arguments, key)) is not None}
        every = contenders_of(arguments)
        contenders = [contender for contender in every if setting.model in contender.models]
        if without := [contender.name for contender in every if contender not in contenders]:
            print(f"without {', '.join(without)}: no {setting.model} there", flush=True)
        if too_small := [data.name for data in sets if len(data.train) < setting.batch]:
            parser.error(f"fewer training images than a batch of {setting.batch} has: {', '.join(too_small)}")
        failed = Comparison(setting, budget, contenders, results, arguments.folder).run(sets, arguments.seeds)
    runs = [it for it in results.read() if it["kind"] == "run"]
    print("\n".join(tables(runs)))
    if arguments.chart and runs:
        chart(runs, arguments.chart)
    sys.exit(bool(failed))


def contenders_of(arguments: argparse.Namespace) -> list[Contender]:
    """The contenders that the command line names, in their order."""
    every: list[Contender] = [Ours(), Ours("paper", overrides=("recipe=paper",))]
    if arguments.before:
        every.append(Ours("before", arguments.before))
    if arguments.libreyolo:
        every.append(LibreYolo(arguments.libreyolo))
    if arguments.authors:
        every.append(Authors(arguments.authors, arguments.authors_python))
    chosen = arguments.contenders or [contender.name for contender in every]
    if missing := set(chosen) - {contender.name for contender in every}:
        raise SystemExit(f"unknown, or without the option that says where it is: {', '.join(sorted(missing))}")
    return [contender for contender in every if contender.name in chosen]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="NAME=FOLDER", help="data sets")
    parser.add_argument("--steps", type=int, help="optimizer steps of each run, to the nearest epoch")
    parser.add_argument("--minutes", type=float, help="minutes of each run, instead of steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", choices=("r18vd", "nano"), default="r18vd", help="only ours has nano")
    parser.add_argument("--size", type=int, default=160, help="side of the images in pixels; peers need 128")
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    parser.add_argument("--threads", type=int, default=2, help="threads of each process")
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="of ours, paper, before, libreyolo, authors")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout of this repository")
    parser.add_argument("--libreyolo", metavar="PYTHON", help="Python of an environment that has libreyolo")
    parser.add_argument("--authors", type=Path, metavar="FOLDER", help="checkout of lyuwenyu/RT-DETR")
    parser.add_argument(
        "--authors-python", metavar="PYTHON", default=sys.executable,
        help="Python of an environment that has what their requirements.txt names",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=Path("accuracy.jsonl"), help="file for finished runs")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"), help="where runs write while they last")
    parser.add_argument("--table", action="store_true", help="train nothing; print what the results hold")
    parser.add_argument("--chart", type=Path, help="image file for AP by minute")
    return parser
