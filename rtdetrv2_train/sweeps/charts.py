"""Charts of a sweep, drawn by Optuna: AP by trial and by epoch, parameter importances, parallel coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from optuna.trial import TrialState, create_trial
from optuna.visualization.matplotlib import (
    plot_intermediate_values,
    plot_optimization_history,
    plot_parallel_coordinate,
    plot_param_importances,
)

from rtdetrv2_train.sweeps.results import best_ap

_ENOUGH = 2  # trials with an AP, below which there is nothing to compare
_LEGEND_ROWS = 16


def save_charts(folder: Path, study: optuna.Study) -> list[Path]:
    """Draw a study as PNG files, without a display. Two trials with an AP are needed.

    Args:
        folder: of the files.
        study: to draw. Pruned and running trials count with the AP of their best epoch.

    Returns:
        The files.
    """
    study = with_every_ap(study)
    if len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])) < _ENOUGH:
        return []
    charts: dict[str, Callable[[optuna.Study], Axes]] = {
        "history": _history,
        "epochs": _epochs,
        "importances": _importances,
        "parallel_coordinates": _parallel_coordinates,
    }
    paths = [folder / f"{name}.png" for name in charts]
    for path, draw in zip(paths, charts.values(), strict=True):
        with _pyplot_without_display():
            draw(study)
            figure = pyplot.gcf()
            figure.set_layout_engine("none")  # a wide legend would take the room of the axes
            figure.savefig(path, dpi=120, bbox_inches="tight")
            pyplot.close(figure)
    return paths


def with_every_ap(study: optuna.Study) -> optuna.Study:
    """Copy a study in memory, with APs in percent. Optuna's charts leave out the AP of pruned trials."""
    copy = optuna.create_study(direction="maximize")
    for trial in study.get_trials(deepcopy=False):
        ap = best_ap(trial)
        copy.add_trial(
            create_trial(
                state=TrialState.FAIL if ap is None else TrialState.COMPLETE,
                value=None if ap is None else 100 * ap,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values={epoch: 100 * value for epoch, value in trial.intermediate_values.items()},
            )
        )
    return copy


@contextmanager
def _pyplot_without_display() -> Iterator[None]:
    """Use Matplotlib's file backend, and restore backend and style afterwards: Optuna's charts set the style."""
    backend = matplotlib.get_backend()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a few trials little can be said, which the charts show
        pyplot.switch_backend("agg")
        matplotlib.rcParams["text.parse_math"] = False  # a value may have dollars in it
        try:
            yield
        finally:
            matplotlib.use(backend, force=False)


def _history(study: optuna.Study) -> Axes:
    axes = plot_optimization_history(study, target_name="AP (%)")
    axes.set(title="AP by trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _epochs(study: optuna.Study) -> Axes:
    axes = plot_intermediate_values(study)
    axes.set(title="AP by epoch", xlabel="Epoch", ylabel="AP (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for index, line in enumerate(axes.lines):  # Optuna's colours are all the same after twenty trials
        line.set_color(matplotlib.colormaps["viridis"](index / len(axes.lines)))
    axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", ncols=1 + (len(axes.lines) - 1) // _LEGEND_ROWS)
    return axes


def _importances(study: optuna.Study) -> Axes:
    axes = plot_param_importances(study, target_name="AP (%)")
    axes.set_title("Parameter importances", loc="left")
    axes.set_xlabel("Importance (sums to 1)")
    axes.margins(x=0.15)
    for label in axes.texts:
        label.set_text(f" {label.get_text()}")
    axes.legend().remove()
    return axes


def _parallel_coordinates(study: optuna.Study) -> Axes:
    names = sorted({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    axes = plot_parallel_coordinate(study, params=names, target_name="AP (%)")
    pyplot.gcf().set_size_inches(2 * len(names) + 3, 4.8)
    axes.set_title("Parallel coordinates", y=1.03)
    axes.set_xticks(range(len(names) + 1), ["AP (%)", *names], rotation=20, ha="right")  # Optuna cuts names short
    axes.collections[0].set_cmap("viridis_r")  # with the palest of Optuna's blues a poor trial cannot be seen
    for axis in pyplot.gcf().axes:
        pyplot.setp(axis.get_yticklabels(), bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    return axes
