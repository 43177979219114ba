"""Counts that do not depend on the machine: operations that PyTorch dispatches, and device-to-host reads."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "bincount")


class OperationCounter(TorchDispatchMode):
    """Counts what PyTorch dispatches within this context.

    Attributes:
        operations: number of ATen operations.
        reads: number of operations among them that make the host wait for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count one operation, and run it."""
        self.operations += 1
        self.reads += func.overloadpacket.__name__ in READS
        return func(*args, **(kwargs or {}))
