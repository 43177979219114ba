"""The figures of `benchmarks.speed` as table and chart."""

from __future__ import annotations

import statistics
from pathlib import Path

# for each implementation the figures of each round
Rounds = dict[str, list[dict[str, float]]]

_PEERS = {"huggingface": "Hugging Face", "authors": "authors"}


def row(name: str, rounds: Rounds, ceiling: float) -> str:
    """One row of the table: medians of each implementation, and the median of the ratios within the rounds.

    Args:
        name: name of the workload.
        rounds: figures of the workload.
        ceiling: highest GFLOP/s of the machine.
    """
    cells = [_cell(rounds["ours"], ceiling)]
    for peer in _PEERS:
        text = _cell(rounds[peer], ceiling) if peer in rounds else ""
        for key, unit in (("seconds", "time"), ("megabytes", "memory")):
            if peer in rounds and key in rounds[peer][0]:
                text += f", {unit} x{ratio(rounds, peer, key):.2f}"
        cells.append(text)
    return f"| {name} | {' | '.join(cells)} |"


def ratio(rounds: Rounds, peer: str, key: str) -> float:
    """Median over rounds of their figure divided by ours."""
    pairs = zip(rounds[peer], rounds["ours"], strict=True)
    return statistics.median(theirs[key] / ours[key] for theirs, ours in pairs)


def chart(results: dict[str, Rounds], path: Path) -> None:
    """Bar chart of the time of each peer, relative to ours."""
    from matplotlib.figure import Figure

    timed = {name: rounds for name, rounds in results.items() if "seconds" in rounds["ours"][0]}
    figure = Figure(figsize=(7, 0.42 * len(timed) + 1), layout="constrained")
    axes = figure.subplots()
    for offset, (peer, label) in zip((-0.2, 0.2), _PEERS.items(), strict=True):
        places = [place for place, rounds in enumerate(timed.values()) if peer in rounds]
        values = [ratio(rounds, peer, "seconds") for rounds in timed.values() if peer in rounds]
        bars = axes.barh([place + offset for place in places], values, height=0.36, label=label)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(timed)), list(timed), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time, ours = 1 (longer is slower than ours)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def _cell(figures: list[dict[str, float]], ceiling: float) -> str:
    middle = {key: statistics.median(figure[key] for figure in figures) for key in figures[0]}
    if "seconds" not in middle:
        return ", ".join(f"{key} {value:,.0f}" for key, value in middle.items())
    seconds = middle["seconds"]
    text = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
    text += f", {middle['megabytes']:,.0f} MB"
    if "gflops" in middle:
        text += f", {middle['gflops'] / ceiling:.0%} of the ceiling"
    return text
