"""What all ranks agree on, without waiting for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from rtdetrv2_train.ops.host_copy import HostCopy


class Agreement:
    """The largest of the numbers that all ranks give, known to all of them one call later.

    One small all-reduce is on its way while the next step is computed, so that nothing waits for it. All ranks have to
    ask equally often. With one process the answer is its own number, at once.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor | HostCopy, Any] | None = None

    def ask(self, number: int, device: torch.device) -> int:
        """Give a number, and get the largest of those that were given in the call before; 0 in the first.

        Args:
            number: of this rank.
            device: that the ranks communicate on.
        """
        if not _is_distributed():
            return number
        answer = self._answer()
        given = torch.tensor(number, dtype=torch.int32).to(device, non_blocking=True)
        work = distributed.all_reduce(given, distributed.ReduceOp.MAX, async_op=True)
        if device.type == "cuda":
            work.wait()  # has the device wait, not the host
            self._pending = (HostCopy(given), None)
        else:
            self._pending = (given, work)
        return answer

    def settle(self, number: int, device: torch.device) -> int:
        """The largest of the numbers given now and in the call before. Waits for the other ranks."""
        answer = self.ask(number, device)
        return max(answer, self._answer()) if _is_distributed() else answer

    def _answer(self) -> int:
        if self._pending is None:
            return 0
        (number, work), self._pending = self._pending, None
        if isinstance(number, HostCopy):
            return int(number.read())  # of the step before, so it has most likely arrived
        work.wait()
        return int(number)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
