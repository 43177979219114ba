"""What the processes of a run agree on, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class Agreement:
    """The largest of the numbers that all processes give, known to all of them one call later.

    One small reduction is on its way while the next step is computed, so that nothing waits for it. All processes
    have to ask equally often. With one process the answer is its own number, at once.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, Any] | None = None

    def ask(self, number: int, device: torch.device) -> int:
        """Give a number, and get the largest of those that were given in the call before; 0 in the first.

        Args:
            number: of this process.
            device: that the processes communicate on.
        """
        if not _several_processes():
            return number
        answer = self._answer()
        given = torch.tensor(number, dtype=torch.int32)
        on_device = given.to(device, non_blocking=True)
        work = distributed.all_reduce(on_device, distributed.ReduceOp.MAX, async_op=True)
        if device.type != "cuda":
            self._pending = (on_device, work)
            return answer
        work.wait()  # has the device wait, not the host
        arriving = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
        arriving.copy_(on_device, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending = (arriving, arrived)
        return answer

    def settle(self, number: int, device: torch.device) -> int:
        """The largest of the numbers given now and in the call before. Waits for the other processes."""
        answer = self.ask(number, device)
        return max(answer, self._answer()) if _several_processes() else answer

    def _answer(self) -> int:
        if self._pending is None:
            return 0
        number, awaited = self._pending
        self._pending = None
        if isinstance(awaited, torch.cuda.Event):
            awaited.synchronize()  # of the step before, so it has most likely happened
        else:
            awaited.wait()
        return int(number)


def _several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
