"""The ranks of a run on one machine, started by this process, which is rank 0.

Lightning's own launcher would run the command line of this process again. Under Hydra that composes the configuration
again, at another time and for another folder; in a sweep it would be the whole sweep. Here the other ranks are started
before Lightning's Trainer is made, with the environment variables by which Lightning knows ranks that others started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_GRACE_SECONDS = 60.0  # for rank 0 to notice by itself that a rank is lost, and to end with a message of its own
_POLL_SECONDS = 0.5


@contextmanager
def local_ranks(world_size: int, command: Sequence[str]) -> Iterator[None]:
    """Ranks 1 to ``world_size - 1`` run beside this process within this context; afterwards they have ended.

    Where a rank fails, this process notices as soon as it waits for it; if it does not within a minute, as where NCCL
    waits for ever, it is ended.

    Args:
        world_size: number of ranks, this one included; 1 starts none.
        command: starts a process that does what this one does.
    """
    if world_size == 1:
        yield
        return
    environment = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",  # tells Lightning that the ranks have been started
        "WORLD_SIZE": str(world_size),
    }
    before = {name: os.environ.get(name) for name in environment}
    os.environ |= environment
    others = [
        subprocess.Popen(list(command), env=os.environ | {"LOCAL_RANK": str(rank)}) for rank in range(1, world_size)
    ]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    try:
        yield
    except BaseException:
        for process in others:
            process.send_signal(signal.SIGKILL)
        raise
    finally:
        over.set()
        for process in others:
            process.wait()
        _leave_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process some time after another rank has failed."""
    while not over.wait(_POLL_SECONDS):
        if failed := [process for process in others if process.poll()]:
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline:
                if over.wait(_POLL_SECONDS):
                    return
            sys.stderr.write(
                f"error: another process of this run was lost (status {failed[0].returncode}), its own messages say "
                "why; continue with resume= and the run's folder\n"
            )
            for process in others:
                process.kill()
            os._exit(1)


def _leave_group() -> None:
    from torch import distributed  # this module is also used before PyTorch is imported

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
