"""Agreement of all ranks on a decision, by an asynchronous all-reduce."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from rtdetrv2_train.ops.host_copy import HostCopy


class Agreement:
    """The maximum of a number over all ranks, known to every rank one call later.

    A small all-reduce runs while the next step is computed, so nothing waits for it. All ranks must call equally often.
    With a world size of 1 the answer is the rank's own number, at once.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor | HostCopy, Any] | None = None

    def ask(self, number: int, device: torch.device) -> int:
        """Give this rank's number; get the maximum over all ranks of the previous call, 0 at the first call.

        Args:
            number: number of this rank.
            device: device that the ranks communicate with.
        """
        if not _is_distributed():
            return number
        answer = self._answer()
        given = torch.tensor(number, dtype=torch.int32).to(device, non_blocking=True)
        work = distributed.all_reduce(given, distributed.ReduceOp.MAX, async_op=True)
        if device.type == "cuda":
            work.wait()  # makes the device wait, not the host
            self._pending = (HostCopy(given), None)
        else:
            self._pending = (given, work)
        return answer

    def settle(self, number: int, device: torch.device) -> int:
        """The maximum over all ranks of this call and the previous one. Waits for the other ranks."""
        answer = self.ask(number, device)
        return max(answer, self._answer()) if _is_distributed() else answer

    def _answer(self) -> int:
        if self._pending is None:
            return 0
        (number, work), self._pending = self._pending, None
        if isinstance(number, HostCopy):
            return int(number.read())  # of the previous step, so it has most likely arrived
        work.wait()
        return int(number)


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
