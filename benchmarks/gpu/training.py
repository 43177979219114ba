"""Speed and memory of training, beside Hugging Face's model and the authors' on the same card, in turn."""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import CONTENDERS, LEARNING_RATE, Contender, Ours, Setting
from benchmarks.gpu import operations
from benchmarks.gpu.card import product_flops
from benchmarks.gpu.child import described
from benchmarks.gpu.plan import Figures, Measurement, Plan, Skipped
from benchmarks.gpu.steps import BOXES, recorded_matcher
from benchmarks.gpu.timing import allocated_megabytes, latency, milliseconds_each, peak_megabytes
from rtdetrv2_train.training.muon import Muon, split_groups

_PEERS = ("huggingface", "authors")


def measurements(plan: Plan) -> list[Measurement]:
    """Eager training of both models first, then what costs the time of compiling."""
    training = _Training(plan)
    if plan.dry_run:
        return [
            training.beside_peers("r18vd", 2),
            training.optimizers("nano"),
            training.largest_operations("nano", 2),
            training.compiled("ours", "nano", 2),
        ]
    return [
        training.beside_peers("r18vd", 16),
        training.beside_peers("r50vd", 16),
        training.optimizers("r18vd"),
        training.compiled("ours", "r18vd", 16),
        training.largest_operations("r18vd", 16),
        training.largest_operations("r50vd", 16),
        training.beside_peers("r18vd", 32),
        training.beside_peers("r50vd", 32),
        training.compiled("ours", "r50vd", 16),
        training.compiled("ours", "r18vd", 32),
        training.compiled("ours", "r50vd", 32),
        training.compiled("huggingface", "r18vd", 16),
    ]


class _Training:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.size = 128 if plan.dry_run else 640  # the least of which Hugging Face's can choose 300 positions
        self.rounds, self.steps, self.warm_up = (1, 1, 0) if plan.dry_run else (3, 4, 3)
        if plan.authors:
            os.environ["RTDETR_AUTHORS"] = str(plan.authors)

    def beside_peers(self, name: str, batch: int) -> Measurement:
        """Eager training of all contenders."""
        return Measurement(f"{name}, batch {batch}", lambda: self._beside_peers(name, batch))

    def compiled(self, contender: str, name: str, batch: int) -> Measurement:
        """Training of one contender, compiled."""
        what = f"{name}, batch {batch}, compiled, {contender}"
        return Measurement(what, lambda: self._compiled(contender, name, batch), limit=110)

    def largest_operations(self, name: str, batch: int) -> Measurement:
        """Where the time of our eager training goes."""
        what = f"{name}, batch {batch}, largest operations"
        return Measurement(
            what, lambda: operations.largest(self._build("ours", name, batch).train_step, self.plan.device)
        )

    def optimizers(self, name: str) -> Measurement:
        """The time of AdamW's step and of Muon's."""
        return Measurement(f"{name}, optimizers", lambda: self._optimizers(name))

    def _optimizers(self, name: str) -> Figures:
        entry = self._build("ours", name, 2)
        with entry.amp():
            output = entry.forward()
        entry.loss(output).backward()
        trained = {key: parameter for key, parameter in entry.model.named_parameters() if parameter.requires_grad}
        group = {"name": "all", "params": list(trained.values()), "parameter_names": list(trained), "lr": LEARNING_RATE}
        muon = Muon(split_groups([group]), LEARNING_RATE)
        return {
            "AdamW, ms": latency(entry.optimizer.step, self.plan.device, 10),
            "Muon, ms": latency(muon.step, self.plan.device, 10),
        }

    def _build(self, contender: str, name: str, batch: int, compiled: str | None = None) -> Contender:
        _check_present(contender, self.plan)
        half = None if self.plan.dry_run else torch.bfloat16
        setting = Setting(self.plan.device, half, compiled)
        return CONTENDERS[contender](name, self.size, batch, BOXES, setting=setting)

    def _beside_peers(self, name: str, batch: int) -> Figures:
        figures: Figures = {}
        entries: dict[str, Contender] = {}
        for contender in ("ours", *_PEERS):
            try:
                entries[contender], figures[contender] = self._warmed_up(lambda: self._build(contender, name, batch))  # noqa: B023
            except Skipped as skip:
                figures[contender] = {"skipped": str(skip)}
            except Exception as error:
                if contender == "ours":
                    raise
                figures[contender] = {"failed": described(error)}
        rounds: dict[str, list[float]] = {contender: [] for contender in entries}
        for _ in range(self.rounds):
            for contender, entry in entries.items():
                rounds[contender].append(milliseconds_each(entry.train_step, self.plan.device, self.steps))
        for contender, taken in rounds.items():
            figures[contender] = _speed(statistics.median(taken), batch) | figures[contender]
        for peer in entries.keys() & set(_PEERS):
            ratios = [theirs / own for theirs, own in zip(rounds[peer], rounds["ours"], strict=True)]
            memory = figures[peer]["MB"] / figures["ours"]["MB"]
            figures[f"{peer} by ours"] = {"time": statistics.median(ratios), "memory": memory}
        figures["ours"] |= self._details(entries["ours"], figures["ours"]["ms"])
        return figures

    def _compiled(self, contender: str, name: str, batch: int) -> Figures:
        torch.compiler.reset()
        backend = "eager" if self.plan.dry_run else "inductor"
        entry, figures = self._warmed_up(lambda: self._build(contender, name, batch, backend))
        taken = [milliseconds_each(entry.train_step, self.plan.device, self.steps) for _ in range(self.rounds)]
        figures = _speed(statistics.median(taken), batch) | figures
        return figures | (self._details(entry, figures["ms"]) if isinstance(entry, Ours) else {})

    def _warmed_up(self, build: Callable[[], Contender]) -> tuple[Contender, Figures]:
        """A contender that has done some steps, and the memory of a step beyond what was taken before it was built."""
        before = allocated_megabytes(self.plan.device)
        entry = build()
        first = milliseconds_each(entry.train_step, self.plan.device, 1) / 1000
        for _ in range(self.warm_up):
            entry.train_step()
        peak = peak_megabytes(entry.train_step, self.plan.device) - before
        return entry, {"MB": peak, "seconds of the first step": first}

    def _details(self, entry: Contender, milliseconds: float) -> Figures:
        """Shares of a step: of the card's peak, and of the assignment.

        That of the assignment is what a step gains that is given the assignment; ``alone`` is how long it takes, with
        its costs, where nothing else is done meanwhile.
        """
        assert isinstance(entry, Ours)
        with recorded_matcher(entry) as matcher:
            given = milliseconds_each(entry.train_step, self.plan.device, self.steps)
            alone = latency(matcher.solve, self.plan.device, 5)
        details: Figures = {"share of the assignment": 1 - given / milliseconds, "assignment alone, ms": alone}
        if entry.setting.compiled is None:
            with FlopCounterMode(display=False) as counted:
                entry.train_step()
            flops = counted.get_total_flops()
            peak = product_flops(self.plan.device, torch.bfloat16, self.plan.dry_run)
            details |= {"GFLOP a step": flops / 1e9, "share of the peak": flops / milliseconds * 1000 / peak}
        return details


def _check_present(contender: str, plan: Plan) -> None:
    if contender == "huggingface" and importlib.util.find_spec("transformers") is None:
        raise Skipped("transformers is not installed")
    if contender == "authors" and plan.authors is None:
        raise Skipped("no --authors")


def _speed(milliseconds: float, batch: int) -> dict[str, Any]:
    return {"images/s": 1000 * batch / milliseconds, "ms": milliseconds}
