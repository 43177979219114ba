"""Writing a checkpoint as the authors' code does, for their ``tools/train.py`` and their deployment scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.weights.architecture import ArchitectureFacts
from rtdetrv2_train.weights.saving import atomic_save

# Stem channels and blocks of each stage that their backbones can have.
_BACKBONES = {
    "resnet_vd": {
        ((32, 64), (2, 2, 2, 2)),
        ((32, 64), (3, 4, 6, 3)),
        ((32, 64), (3, 4, 23, 3)),
    },
    "hgnetv2": {
        ((32, 48), (1, 1, 3, 1)),
        ((32, 64), (1, 2, 5, 2)),
        ((48, 96), (2, 3, 6, 3)),
    },
}


def write_authors_file(path: str | Path, state_dict: Mapping[str, Tensor], facts: ArchitectureFacts) -> Path:
    """Write weights where the authors' code looks for them: as the model, and as its moving average.

    There is no optimizer in it: it is for ``-t`` (start training from), ``-r ... --test-only``, and deployment.

    Args:
        path: the file, usually ``.pth``; its folder is made if missing.
        state_dict: under the reference names, anchors included.
        facts: shape of the model.

    Returns:
        ``path``.

    Raises:
        UserError: if their code has no such backbone.
    """
    if (facts.stem_channels, facts.backbone_blocks) not in _BACKBONES[facts.backbone]:
        raise UserError(
            f"the authors' code cannot build this model: its backbone has {list(facts.backbone_blocks)} blocks and "
            f"{facts.stem_channels[1]} channels after the stem; export a model with ResNet-vd 18, 34, 50 or 101 or "
            "HGNetv2 L, X or H"
        )
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_dict.items()}
    content: dict[str, Any] = {"last_epoch": -1, "model": weights, "ema": {"module": weights, "updates": 0}}
    return atomic_save(path, lambda temporary: torch.save(content, temporary))
