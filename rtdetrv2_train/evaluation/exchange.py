"""Exchange of tensors of unequal length between processes, without pickled objects."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_rows(tensor: Tensor) -> Tensor:
    """Rows of all ranks, one rank after the other, on every rank.

    The lengths travel first; then each rank's rows, padded to the longest.

    Args:
        tensor: ``[n, ...]`` on the CPU; ``n`` may differ from rank to rank, the other dimensions and the type may not.

    Returns:
        ``[sum of n, ...]`` on the CPU, in the order of the ranks.
    """
    device = _device_of_backend()
    world_size = dist.get_world_size()
    length = torch.tensor([len(tensor)], dtype=torch.int64, device=device)
    lengths = [torch.zeros_like(length) for _ in range(world_size)]
    dist.all_gather(lengths, length)
    counts = [int(of_rank) for of_rank in lengths]
    longest = max(counts)
    padded = torch.zeros((longest, *tensor.shape[1:]), dtype=tensor.dtype, device=device)
    padded[: len(tensor)] = tensor.to(device)
    received = [torch.empty_like(padded) for _ in range(world_size)]
    if longest > 0:
        dist.all_gather(received, padded)
    return torch.cat([rows[:count].cpu() for rows, count in zip(received, counts, strict=True)])


def _device_of_backend() -> torch.device:
    # NCCL moves CUDA tensors only. A mixed backend ("cpu:gloo,cuda:nccl") takes CPU tensors too.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
