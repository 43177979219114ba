"""CUDA graphs: whether work can be captured as one, and replaying it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.child import described

_WARM_UP = 3


class Captured:
    """A function captured as a CUDA graph. Calling it replays what the function did, on the same memory.

    Args:
        function: reads and writes tensors that stay where they are.

    Attributes:
        output: what the function gave, whose tensors have new values after each call.

    Raises:
        RuntimeError: if it cannot be captured.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        own, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(own)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):  # fills caches, chooses algorithms and makes the optimizer's state
                function()
        own.wait_stream(side)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self._graph):
                self.output = function()
        finally:
            torch.cuda.set_stream(own)  # a capture that fails leaves its own behind

    def __call__(self) -> Any:
        """Replay."""
        self._graph.replay()
        return self.output


def why_not(error: BaseException) -> str:
    """What stopped a capture: its first error, as leaving the capture raises others."""
    while error.__context__ is not None:
        error = error.__context__
    return described(error)
