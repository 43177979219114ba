"""Preemption: SIGTERM, SLURM's SIGUSR1 or Ctrl-C ask a run to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any


class PreemptionSignals:
    """Signal handlers that only note SIGTERM, SIGINT and, under SLURM, SIGUSR1. A second SIGINT interrupts at once.

    Lightning's own handlers would communicate with other ranks in the middle of a step.

    Args:
        announce: text for standard error when the first signal arrives.

    Attributes:
        received: the latest signal; None before the first.
    """

    def __init__(self, announce: str = "") -> None:
        self.received: signal.Signals | None = None
        self._announcement = announce.encode()
        self._earlier: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Install the handlers. Only the main thread can; in another thread this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        watched = [signal.SIGTERM, signal.SIGINT]
        if "SLURM_JOB_ID" in os.environ:
            watched.append(signal.SIGUSR1)  # sent before the time limit: sbatch --signal=USR1@120
        for number in watched:
            self._earlier[number] = signal.signal(number, self._note)

    def leave(self) -> None:
        """Restore the earlier handlers."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._announcement:
            os.write(2, self._announcement)  # not logging, as the interrupted code may hold its locks


def requeue_slurm_job() -> None:
    """Put this SLURM job back into the queue, with the same command.

    Raises:
        OSError: if there is no ``scontrol``.
        subprocess.CalledProcessError: if SLURM refuses.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    subprocess.run(["scontrol", "requeue", job], check=True)
