"""Runs the parts of `benchmarks.gpu`, each in a process of its own, and keeps every result at once.

A process that is lost, because it crashes, hangs or its CUDA context breaks, costs the measurement that was under way;
the others go on in another process. What a part has not used of its budget is left to the parts after it. So all of
them end in time, whatever happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.gpu.plan import Part, Plan
from benchmarks.gpu.results import Record, Results

ROOT = Path(__file__).resolve().parents[2]
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 5.0
_ENDED: dict[str, Any] = {}  # what a channel gives when the process has closed it


class Runner:
    """Measures parts.

    Args:
        plan: what measurements are told.
        results: takes the results.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.results = plan, results

    def run(self, parts: Mapping[str, Part]) -> None:
        """Measure all parts, in their order; none if the first measures nothing, as there is no GPU, then."""
        deadline = time.monotonic()
        for name, part in parts.items():
            deadline += part.budget
            self._measure(name, part, deadline)
            if not any(it.state == "measured" for it in self.results.records):
                return

    def _measure(self, name: str, part: Part, deadline: float) -> None:
        """One part, in as many processes as it takes."""
        progress = _Progress(name, self)
        while True:
            before = len(progress.done)
            with _Child(self._request(name, part, progress.done), self.results.folder / f"{name}.log") as child:
                status = progress.follow(child, deadline)
            if time.monotonic() >= deadline:
                progress.leave_out_rest(f"the part's {part.budget:g} seconds were used up")
                return
            if not progress.left and progress.planned is not None:
                return
            if len(progress.done) == before:
                self.keep(Record(name, "start", "failed", reason=f"{status}: see {name}.log"))
                return

    def _request(self, name: str, part: Part, done: list[str]) -> str:
        plan = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.plan).items()}
        return json.dumps({"part": name, "module": part.module, "plan": plan, "done": done})

    def keep(self, record: Record) -> None:
        """Keep a result, and print it."""
        self.results.add(record)
        print(f"{record.part:10} {record.name}: {record.text()} [{record.seconds:.1f} s]", flush=True)


class _Progress:
    """How far a part is, over all of its processes."""

    def __init__(self, part: str, runner: Runner) -> None:
        self.part, self.runner = part, runner
        self.planned: list[str] | None = None
        self.done: list[str] = []

    @property
    def left(self) -> list[str]:
        return [name for name in self.planned or () if name not in self.done]

    def follow(self, child: _Child, deadline: float) -> str:
        """Take the results of a process until it ends or has to; gives how it ended."""
        current, began, limit = None, 0.0, float("inf")
        while True:
            until = min(deadline, began + limit)
            message = child.message(until - time.monotonic())
            if message and "planned" in message:
                self.planned = message["planned"]
            elif message and "began" in message:
                current, began = message["began"], time.monotonic()
                limit = float("inf") if self.runner.plan.dry_run else message["limit"]
            elif message:
                current, limit = None, float("inf")
                self._keep(Record(**message["ended"]))
            else:
                seconds = time.monotonic() - began
                status = child.end() if message is _ENDED else f"stopped after {seconds:.0f} seconds"
                if current is not None:
                    self._keep(Record(self.part, current, "failed", seconds=round(seconds, 2), reason=status))
                return status

    def leave_out_rest(self, reason: str) -> None:
        for name in self.left if self.planned is not None else ["everything"]:
            self._keep(Record(self.part, name, "left out", reason=reason))

    def _keep(self, record: Record) -> None:
        self.done.append(record.name)
        self.runner.keep(record)


class _Child:
    """A process of one part. It ends with this context, and so does all that it has started.

    Args:
        request: what it is to measure.
        log: file that its output is appended to.
    """

    def __init__(self, request: str, log: Path) -> None:
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.child"], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as channel:
            channel.write(request)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(_ENDED)

    def message(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None if there is none in time."""
        end = time.monotonic() + seconds
        while True:
            is_over = self._process.poll() is not None  # its own children may keep the channel open
            try:
                return self._messages.get(timeout=max(min(end - time.monotonic(), _SECONDS_BETWEEN_LOOKS), 0))
            except queue.Empty:
                if is_over:
                    return _ENDED
                if time.monotonic() >= end:
                    return None

    def end(self) -> str:
        """How a process ended that says nothing more."""
        try:
            status = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return "did not end"
        return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
