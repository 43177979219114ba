"""The results of `benchmarks.accuracy` as tables and chart."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

CONTENDERS = {
    "ours": "ours",
    "paper": "ours, `recipe=paper`",
    "before": "ours, before",
    "libreyolo": "LibreYOLO",
    "authors": "authors",
}

_MOST_IN_A_ROW = 3

Record = dict[str, Any]


def tables(runs: list[Record]) -> list[str]:
    """A table for each setting, as lines of Markdown.

    Args:
        runs: the finished runs.
    """
    lines = []
    for setting, of_setting in _grouped(runs, "setting").items():
        seeds = len({run["seed"] for run in of_setting})
        lines += [f"{setting}, {seeds} seed{'s' * (seeds > 1)}:", "", *table(of_setting), ""]
    return lines


def table(runs: list[Record]) -> list[str]:
    """One row for each set and contender: AP, its spread, the difference to ours, minutes and steps.

    The difference is the mean over the seeds that both have.

    Args:
        runs: the finished runs of one setting.
    """
    lines = ["| set | | AP | lowest to highest | beside ours | minutes | steps |", "|---|---|---|---|---|---|---|"]
    for name, of_set in _grouped(runs, "set").items():
        by_contender = _grouped(of_set, "contender")
        ours = {run["seed"]: run["AP"] for run in by_contender.get("ours", ())}
        for contender in sorted(by_contender, key=_place):
            of_contender = by_contender[contender]
            found = [run["AP"] for run in of_contender]
            differences = [run["AP"] - ours[run["seed"]] for run in of_contender if run["seed"] in ours]
            beside = ""
            if differences and contender != "ours":
                beside = f"{round(statistics.mean(differences), 1) + 0.0:+.1f}"  # without the sign of -0.0
            spread = f"{min(found):.1f} to {max(found):.1f}" if len(found) > 1 else ""
            minutes = statistics.mean(run["seconds"] for run in of_contender) / 60
            steps = statistics.mean(run["steps"] for run in of_contender)
            lines.append(
                f"| {name} | {CONTENDERS.get(contender, contender)} | {statistics.mean(found):.1f} | {spread} "
                f"| {beside} | {minutes:.1f} | {steps:,.0f} |"
            )
    return lines


def chart(runs: list[Record], path: Path) -> None:
    """Draw AP by minute, as the projects measured it while they trained: a panel for each set, a line for each run.

    Args:
        runs: the finished runs.
        path: image file to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    settings = _grouped(runs, "setting")
    panels = [
        (name if len(settings) == 1 else f"{name}, {setting}", of_set)
        for setting, of_setting in settings.items()
        for name, of_set in _grouped(of_setting, "set").items()
    ]
    columns = len(panels) if len(panels) <= _MOST_IN_A_ROW else math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 2.6 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    lines: dict[str, Line2D] = {}
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, of_set) in zip(grid.flat, panels, strict=False):
        for run in sorted(of_set, key=lambda run: _place(run["contender"])):
            contender: str = run["contender"]
            minutes, found = [at / 60 for at, _ in run["curve"]], [ap for _, ap in run["curve"]]
            (line,) = axes.plot(minutes, found, color=f"C{_place(contender)}", linewidth=1.4, alpha=0.75)
            lines.setdefault(CONTENDERS.get(contender, contender).replace("`", ""), line)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("minutes", fontsize=8)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    for row in grid:
        row[0].set_ylabel("AP", fontsize=8)
    figure.legend(
        list(lines.values()), list(lines), loc="outside lower center", ncols=len(lines), frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=130)


def _setting(run: Record) -> str:
    """What all runs of a comparison have in common, in words."""
    length = ", ".join(f"{value:,g} {unit}" for unit, value in run["budget"].items())
    threads = f"{run['threads']} thread{'s' * (run['threads'] > 1)}"
    return f"{run['model']}, {run['size']} x {run['size']}, batches of {run['batch']}, {length}, {threads}"


def _grouped(runs: list[Record], key: str) -> dict[str, list[Record]]:
    """Runs by a value, or by their setting in words, in the order of their first run."""
    groups: dict[str, list[Record]] = {}
    for run in runs:
        groups.setdefault(_setting(run) if key == "setting" else run[key], []).append(run)
    return groups


def _place(contender: str) -> int:
    """Place of a contender in tables and its colour; others come last."""
    return list(CONTENDERS).index(contender) if contender in CONTENDERS else len(CONTENDERS)
