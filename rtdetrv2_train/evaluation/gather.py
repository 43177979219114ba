"""Gathering tensors of unequal length on rank 0, without pickled objects."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether the world size is above 1."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(tensor: Tensor) -> Tensor:
    """Rows of all ranks, one rank after the other, on rank 0.

    The lengths travel first; then each rank's rows, padded to the longest.

    Args:
        tensor: ``[n, ...]`` on the CPU; ``n`` may differ from rank to rank, the other dimensions and the type may not.

    Returns:
        on rank 0 ``[sum of n, ...]`` on the CPU, in the order of the ranks; on others ``[0, ...]``.
    """
    device = _device_of_backend()
    length = torch.tensor([len(tensor)], dtype=torch.int64, device=device)
    lengths = [torch.zeros_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    counts = [int(of_rank) for of_rank in lengths]
    longest = max(counts)
    rows = tensor.to(device)
    if len(rows) < longest:
        rows = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    if dist.get_rank() > 0:
        if longest > 0:
            dist.gather(rows)
        return tensor[:0]
    received = [torch.empty_like(rows) for _ in counts]
    if longest > 0:
        dist.gather(rows, received)
    return torch.cat([of_rank[:count].cpu() for of_rank, count in zip(received, counts, strict=True)])


def _device_of_backend() -> torch.device:
    # NCCL moves CUDA tensors only. A mixed backend ("cpu:gloo,cuda:nccl") takes CPU tensors too.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
