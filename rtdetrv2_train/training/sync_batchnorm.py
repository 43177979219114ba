"""SyncBatchNorm for DDP on the CPU (gloo), where PyTorch's ``nn.SyncBatchNorm`` does not work: it needs CUDA."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class CPUSyncBatchNorm2d(nn.BatchNorm2d):
    """SyncBatchNorm on the CPU: mean and variance are those over all ranks, whose batches must be equally large."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]``. In training this is a collective, so all ranks must call it."""
        if not self.training or not dist.is_initialized():
            return super().forward(x_BCHW)
        world_size = dist.get_world_size()
        mean_C = all_reduce(x_BCHW.mean((0, 2, 3))) / world_size
        centred_BCHW = x_BCHW - mean_C[:, None, None]
        variance_C = all_reduce(centred_BCHW.square().mean((0, 2, 3))) / world_size
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            count = x_BCHW.numel() // x_BCHW.shape[1] * world_size
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(variance_C * count / max(count - 1, 1), self.momentum)
            self.num_batches_tracked += 1
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], centred_BCHW, scale_C[:, None, None])


class CPUSyncBatchNorm(LayerSync):
    """Makes ``trainer.sync_batchnorm=true`` of Lightning work for DDP on the CPU (gloo)."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Turn every BatchNorm into SyncBatchNorm."""
        return _replace_batchnorm(model, nn.BatchNorm2d, CPUSyncBatchNorm2d)

    def revert(self, model: nn.Module) -> nn.Module:
        """Turn every SyncBatchNorm back into BatchNorm."""
        return _replace_batchnorm(model, CPUSyncBatchNorm2d, nn.BatchNorm2d)


def _replace_batchnorm(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new  # parameters, names and hooks stay
    return model
