"""Copies from the device to the host that nobody waits for until they are read."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host, through page-locked memory from a GPU; on a CPU it is there already.

    Args:
        tensor: on any device; it must not be changed in place before it is read.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._tensor = tensor.detach() if tensor.is_cuda else tensor.detach().cpu()
        if tensor.is_cuda:
            self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor.copy_(tensor.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> Tensor:
        """The tensor on the host, as soon as it has arrived. May be called by any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensor
