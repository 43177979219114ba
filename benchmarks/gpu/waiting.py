"""Every point at which the host waits for the device, with the line of this project that it comes from."""

from __future__ import annotations

import linecache
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.counting import READS

_ROOT = Path(__file__).resolve().parents[2]
_MESSAGE = "called a synchronizing"  # of PyTorch's warning
# Frames of the first that is on the stack at all tell where a wait comes from.
_PLACES = ("rtdetrv2_train/", "torch/optim/", "lightning/", "benchmarks/", "tests/")
_FRAMES = 2


class WaitRecorder:
    """Records waits of all threads within this context.

    On a GPU those are what PyTorch's debug mode warns about, and calls that wait for an event or for the device, about
    which it does not warn. On a CPU they are the operations that would be waits on a GPU.

    Args:
        device: name of the device.

    Attributes:
        waits: how often each place has waited.
    """

    def __init__(self, device: str) -> None:
        self.is_gpu = torch.device(device).type == "cuda"
        self.waits: Counter[str] = Counter()
        self._context = ExitStack()

    def __enter__(self) -> WaitRecorder:
        with ExitStack() as context:
            if not self.is_gpu:
                context.enter_context(_Reads(self._note))
            else:
                context.enter_context(warnings.catch_warnings())
                warnings.simplefilter("always")
                context.enter_context(mock.patch.object(warnings, "showwarning", self._hook(warnings.showwarning)))
                for owner in (torch.cuda.Event, torch.cuda):
                    waiting = self._noting(owner.synchronize)  # type: ignore[attr-defined]
                    context.enter_context(mock.patch.object(owner, "synchronize", waiting))
                context.callback(torch.cuda.set_sync_debug_mode, torch.cuda.get_sync_debug_mode())
                torch.cuda.set_sync_debug_mode("warn")
            self._context = context.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._context.close()

    def _note(self) -> None:
        self.waits[place_of(sys._getframe(1))] += 1

    def _hook(self, show: Callable[..., None]) -> Callable[..., None]:
        def shown(message: Warning | str, *arguments: Any, **others: Any) -> None:
            if _MESSAGE in str(message):
                self._note()
            else:
                show(message, *arguments, **others)

        return shown

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any, **others: Any) -> Any:
            self._note()
            return function(*arguments, **others)

        return waiting


def place_of(frame: FrameType | None) -> str:
    """Where a stack is in this project: file, line and its text, and the line that has called it."""
    stack = []
    while frame is not None:
        if frame.f_code.co_filename != __file__:
            stack.append((_short(frame.f_code.co_filename), frame))
        frame = frame.f_back
    found = ([entry for entry in stack if entry[0].startswith(place)] for place in _PLACES)
    own = next(filter(None, found), stack)[:_FRAMES]
    thread = threading.current_thread()
    where = " from ".join(f"{file}:{frame.f_lineno} {frame.f_code.co_name}" for file, frame in own)
    text = linecache.getline(own[0][1].f_code.co_filename, own[0][1].f_lineno).strip()
    return f"{where} `{text}`" + ("" if thread is threading.main_thread() else f" in {thread.name.partition('_')[0]}")


def _short(file: str) -> str:
    """A path from this project's folder on, or from the package of another."""
    path = Path(file)
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else file.rpartition("site-packages/")[2]


class _Reads(TorchDispatchMode):
    """Tells of each operation that would make the host wait for a GPU."""

    def __init__(self, note: Callable[[], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in READS:
            self.note()
        return func(*args, **(kwargs or {}))
