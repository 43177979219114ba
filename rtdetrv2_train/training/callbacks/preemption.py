"""Being told to stop: by Ctrl-C, or by a cluster that needs the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from types import FrameType
from typing import Any


class PreemptionSignals:
    """Notes SIGTERM, SIGINT and, under SLURM, SIGUSR1, instead of dying of them. A second SIGINT interrupts at once.

    Lightning's own handlers would talk to other processes in the middle of a step.

    Args:
        announce: what to write to standard error when the first one comes.
    """

    def __init__(self, announce: str = "") -> None:
        self.received: signal.Signals | None = None
        self._announcement = announce.encode()
        self._earlier: dict[signal.Signals, Any] = {}

    def watch(self) -> None:
        """Begin. Only the main thread of a process gets signals; elsewhere this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            return
        watched = [signal.SIGTERM, signal.SIGINT]
        if "SLURM_JOB_ID" in os.environ:
            watched.append(signal.SIGUSR1)  # what SLURM sends before the time is up: sbatch --signal=USR1@120
        for number in watched:
            self._earlier[number] = signal.signal(number, self._note)

    def leave(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._announcement:
            os.write(2, self._announcement)  # the interrupted code may hold the locks of logging


def requeue_slurm_job() -> None:
    """Have SLURM start this job again, with the same command, when its time has come again.

    Raises:
        OSError: if there is no ``scontrol`` here.
        subprocess.CalledProcessError: if it refuses.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    subprocess.run(["scontrol", "requeue", job], check=True)
