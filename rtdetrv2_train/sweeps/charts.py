"""Charts of a sweep: AP by trial and by epoch, which parameters matter, and which values go with a high AP."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from rtdetrv2_train.sweeps.results import best_ap

_ACCENT = "#2f7de1"
_SECOND = "#e0792f"
_PALE = "#b9bec7"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    "figure.dpi": 120,
}
_ENOUGH = 2  # trials with an AP, below which there is nothing to compare


def save_charts(folder: Path, study: optuna.Study) -> list[Path]:
    """Draw the charts that the trials are enough for, as PNG.

    Returns:
        Their files.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if best_ap(trial) is not None]
    if len(trials) < _ENOUGH:
        return []
    charts: dict[str, Callable[[Sequence[FrozenTrial]], Figure]] = {
        "history": _history,
        "epochs": _epochs,
        "importances": _importances,
        "parallel_coordinates": _parallel_coordinates,
    }
    paths = []
    with matplotlib.rc_context(_STYLE):
        for name, draw in charts.items():
            paths.append(folder / f"{name}.png")
            figure = draw(trials)
            FigureCanvasAgg(figure)
            figure.savefig(paths[-1])
    return paths


def _figure(width: float = 6.4, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _percent(trials: Sequence[FrozenTrial]) -> list[float]:
    return [100 * (best_ap(trial) or 0.0) for trial in trials]


def _history(trials: Sequence[FrozenTrial]) -> Figure:
    figure, axes = _figure()
    for state, label, colour in (
        (TrialState.COMPLETE, "complete", _ACCENT),
        (TrialState.PRUNED, "pruned", _PALE),
        (TrialState.RUNNING, "running", _SECOND),
    ):
        of_state = [trial for trial in trials if trial.state is state]
        if of_state:
            axes.scatter([t.number for t in of_state], _percent(of_state), color=colour, label=label, zorder=3)
    best = np.maximum.accumulate(_percent(trials))
    axes.step([trial.number for trial in trials], best, where="post", color=_ACCENT, linewidth=1, label="best so far")
    axes.set(xlabel="trial", ylabel="AP (%)", title="AP of the trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", fontsize=9)
    return figure


def _epochs(trials: Sequence[FrozenTrial]) -> Figure:
    figure, axes = _figure()
    colour_of = _colours(trials)
    for trial in trials:
        epochs, ap = zip(*sorted(trial.intermediate_values.items()), strict=True)
        pruned = trial.state is TrialState.PRUNED
        axes.plot(epochs, 100 * np.asarray(ap), color=colour_of(trial), marker="x" if pruned else ".", linewidth=1.2)
        axes.annotate(f" {trial.number}", (epochs[-1], 100 * ap[-1]), fontsize=7, color="#666", va="center")
    axes.set(xlabel="epoch", ylabel="AP (%)", title="AP by epoch; pruned trials end at a cross")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _importances(trials: Sequence[FrozenTrial]) -> Figure:
    study = optuna.create_study(direction="maximize")  # Optuna leaves pruned trials out, which tell the most
    for trial in trials:
        known = optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=best_ap(trial))
        study.add_trial(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few trials nothing can be said, which the trials show
        importances = get_param_importances(study)
    names = list(importances)[::-1]
    figure, axes = _figure(height=1.4 + 0.4 * len(names))
    bars = axes.barh(names, [100 * importances[name] for name in names], color=_ACCENT, height=0.6)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="share of the differences in AP (%)", title="Which parameters matter")
    return figure


def _parallel_coordinates(trials: Sequence[FrozenTrial]) -> Figure:
    """One line for each trial, over an axis for each parameter; the better, the darker and thicker."""
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions |= trial.distributions
    names = list(distributions)
    figure, axes = _figure(width=max(6.4, 1.9 * (len(names) + 1)), height=4.2)
    colour_of = _colours(trials)
    aps = _percent(trials)
    heights = [_axis(axes, x, name, distributions[name]) for x, name in enumerate(names)]
    low, high = min(aps), max(aps)
    _ticks(axes, len(names), "AP (%)", {f"{ap:.3g}": _share(ap, low, high) for ap in np.linspace(low, high, 5)})
    for trial, ap in sorted(zip(trials, aps, strict=True), key=lambda pair: pair[1]):
        y = [height(trial.params[name]) for name, height in zip(names, heights, strict=True)] + [_share(ap, low, high)]
        axes.plot(range(len(y)), y, color=colour_of(trial), linewidth=1 + 1.5 * _share(ap, low, high), alpha=0.9)
    axes.set(xlim=(-0.3, len(names) + 0.4), ylim=(-0.05, 1.12), xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    figure.suptitle("Which values go with which AP", fontsize=12)
    return figure


def _axis(axes: Axes, x: int, name: str, distribution: BaseDistribution) -> Callable[[Any], float]:
    """Draw the axis of a parameter; gives the height of a value on it."""
    if isinstance(distribution, CategoricalDistribution):
        places = {value: _share(i, 0, len(distribution.choices) - 1) for i, value in enumerate(distribution.choices)}
        _ticks(axes, x, name, {str(value): place for value, place in places.items()})
        return lambda value: places[value]
    low, high, log = distribution.low, distribution.high, distribution.log  # type: ignore[attr-defined]

    def height(value: float) -> float:
        return _share(np.log(value), np.log(low), np.log(high)) if log else _share(value, low, high)

    marks = np.geomspace(low, high, 5) if log else np.linspace(low, high, 5)
    _ticks(axes, x, name, {f"{value:.2g}": height(value) for value in marks})
    return height


def _ticks(axes: Axes, x: int, name: str, marks: dict[str, float]) -> None:
    axes.plot([x, x], [0, 1], color="#444", linewidth=0.8, zorder=4)
    axes.annotate(name.replace(".", ".\n", 1), (x, 1.03), ha="center", va="bottom", fontsize=9)
    for text, y in marks.items():
        axes.annotate(
            text,
            (x + 0.03, y),
            fontsize=8,
            va="center",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.7},
        )


def _share(value: float, low: float, high: float) -> float:
    return float((value - low) / (high - low)) if high > low else 0.5


def _colours(trials: Sequence[FrozenTrial]) -> Callable[[FrozenTrial], Any]:
    """From pale, the worst, to dark, the best."""
    aps = _percent(trials)
    scale = Normalize(min(aps) - 0.25 * (max(aps) - min(aps)), max(aps))
    shade: Colormap = matplotlib.colormaps["Blues"]
    return lambda trial: shade(scale(100 * (best_ap(trial) or 0.0)))
