"""The results of a sweep: a table on the screen, and the same as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtdetrv2_train.console import print_line

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def best_ap(trial: FrozenTrial) -> float | None:
    """AP of the trial's best epoch so far; None before the first."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


def epochs_of(trial: FrozenTrial) -> int:
    """Epochs that the trial was trained for."""
    return max(trial.intermediate_values, default=0)


def best_first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials by AP, then pruned ones, then the others."""
    order = list(_STATES)
    return sorted(trials, key=lambda trial: (order.index(trial.state), -(best_ap(trial) or 0.0), trial.number))


def save_table(path: Path, trials: Sequence[FrozenTrial]) -> None:
    """Write a line for each trial, the best first, as CSV."""
    parameters = _parameters(trials)
    lines = [["trial", "state", "AP", "epochs", *parameters, "reason"]]
    for trial in best_first(trials):
        ap = best_ap(trial)
        values = [str(trial.params.get(name, "")) for name in parameters]
        numbers = [str(trial.number), _STATES[trial.state], "" if ap is None else f"{ap:.6f}", str(epochs_of(trial))]
        lines.append([*numbers, *values, trial.user_attrs.get("error", "")])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)


def print_table(trials: Sequence[FrozenTrial], epochs: int) -> None:
    """Print the trials, how many epochs pruning saved, and why trials failed.

    Args:
        trials: of the sweep.
        epochs: of a trial at full length; -1 where that is given in steps.
    """
    parameters = _parameters(trials)
    table = Table("trial", "state", "AP (%)", "epochs", title="Trials, best first")
    for name in parameters:
        table.add_column(Text(name))
    for trial in best_first(trials):
        ap = best_ap(trial)
        values = [Text(_short(trial.params.get(name))) for name in parameters]
        shown = "" if ap is None else f"{100 * ap:.1f}"
        table.add_row(str(trial.number), _STATES[trial.state], shown, str(epochs_of(trial)), *values)
    Console().print(table)
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if pruned := sum(trial.state is TrialState.PRUNED for trial in ended):
        run, full = sum(map(epochs_of, ended)), max(epochs, *map(epochs_of, ended)) * len(ended)
        print_line(f"{pruned} of {len(ended)} trials pruned: {run} of {full} epochs, {1 - run / full:.0%} saved")
    for trial in trials:
        if trial.state is TrialState.FAIL:
            reason = trial.user_attrs.get("error", "unknown")
            print_line(f"trial {trial.number} failed: {reason}", "red")
    if running := sum(trial.state is TrialState.RUNNING for trial in trials):
        print_line(f"{running} still running elsewhere")


def _parameters(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
