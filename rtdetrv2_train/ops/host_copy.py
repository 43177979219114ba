"""Asynchronous copies from the device to the host. Only reading one waits for it."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way from a GPU to the host, through pinned memory. On a CPU it is there already.

    Args:
        tensor: on any device. It must not be changed in place before it is read.
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
        """Wait for the copy and return it. May be called by any thread."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._tensor
