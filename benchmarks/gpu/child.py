"""The process of one part: its measurements one after the other, each result sent to `runner` at once.

Standard output is the channel to the runner, one JSON object a line. Whatever else is written goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Measurement, Plan, Skipped
from benchmarks.gpu.results import Record

POISONED = 3
"""Exit status of a process whose CUDA context has been lost: what is left needs another one."""

_ROOT = Path(__file__).resolve().parents[2]
_OWN = ("rtdetrv2_train", "benchmarks", "tests")
_LONGEST_REASON = 400


def main() -> None:
    """Measure what standard input asks for."""
    asked = json.loads(sys.stdin.read())
    plan = asked["plan"]
    authors = None if plan["authors"] is None else Path(plan["authors"])
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    measurements = importlib.import_module(asked["module"]).measurements(
        Plan(plan["dry_run"], Path(plan["folder"]), authors)
    )
    measure_all(asked["part"], measurements, asked["done"], send)


def measure_all(
    part: str, measurements: Sequence[Measurement], done: Sequence[str], send: Callable[[dict[str, Any]], None]
) -> None:
    """Measure what is not done yet.

    Args:
        part: name of the part.
        measurements: all of its measurements.
        done: names of those to leave out.
        send: takes ``planned`` with all names, then ``began`` and ``ended`` of each measurement.
    """
    send({"planned": [measurement.name for measurement in measurements]})
    for measurement in measurements:
        if measurement.name in done:
            continue
        send({"began": measurement.name, "limit": measurement.limit})
        send({"ended": asdict(measure(part, measurement))})
        if _is_poisoned():
            sys.exit(POISONED)


def measure(part: str, measurement: Measurement) -> Record:
    """The result of one measurement, whatever happens."""
    began = time.perf_counter()
    print(f"== {measurement.name}", file=sys.stderr, flush=True)
    figures: dict[str, Any] = {}
    state, reason = "measured", ""
    try:
        figures = _plain(measurement.run())
    except Skipped as skip:
        state, reason = "skipped", str(skip)
    except (Exception, SystemExit) as error:  # a command of the product exits
        traceback.print_exc()
        state, reason = "failed", described(error)
    seconds = round(time.perf_counter() - began, 2)
    return Record(part, measurement.name, state, figures, dict(measurement.at_most), seconds, reason)  # type: ignore[arg-type]


def described(error: BaseException) -> str:
    """An error and the line of this project that it came from, in one line."""
    message = " ".join(str(error).split())[:_LONGEST_REASON]
    paths = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [f"{path.relative_to(_ROOT)}:{line}" for path, line in paths if is_own(path)]
    return f"{type(error).__name__}: {message}" + (f" ({own[-1]})" if own else "")


def is_own(path: Path) -> bool:
    """Whether a file is one of this project."""
    return path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OWN


def _plain(value: Any) -> Any:
    """Figures as JSON has them: a number that is not finite becomes a word."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_poisoned() -> bool:
    """Free memory of the GPU for the next measurement; whether the GPU answers no more."""
    torch = sys.modules.get("torch")
    gc.collect()
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


if __name__ == "__main__":
    main()
