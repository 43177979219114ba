"""A part of `benchmarks.gpu` for its tests: measurements that end in every way, as a file in the plan's folder says."""

from __future__ import annotations

import json
import os
import signal
import time

from benchmarks.gpu.plan import Figures, Measurement, Plan, Skipped


def measurements(plan: Plan) -> list[Measurement]:
    """One for each entry of ``made_up.json``: how it ends, and a number for that."""
    wanted: list[tuple[str, float]] = json.loads((plan.folder / "made_up.json").read_text())
    return [
        Measurement(way, lambda way=way, number=number: _end(plan, way, number), {"number": 1}, _limit(way))
        for way, number in wanted
    ]


def _limit(way: str) -> float:
    return 0.3 if way == "hangs" else 30


def _end(plan: Plan, way: str, number: float) -> Figures:
    if way == "raises":
        raise ValueError("no such\nmodel")
    if way == "exits":
        raise SystemExit(2)
    if way == "is skipped":
        raise Skipped("nothing to measure")
    if way == "crashes":
        os.kill(os.getpid(), signal.SIGKILL)
    if way in ("hangs", "takes long"):
        (plan.folder / "process").write_text(str(os.getpid()))
        time.sleep(60)
    return {"number": number, "there": _results(plan) if way == "looks" else []}


def _results(plan: Plan) -> list[str]:
    """Names of the results that are on the disk, once there are any."""
    path = plan.folder / "results" / "gpu.json"
    while not path.exists():
        time.sleep(0.05)
    return [record["name"] for record in json.loads(path.read_text())["results"]]
