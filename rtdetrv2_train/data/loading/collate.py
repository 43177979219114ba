"""How samples become a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rtdetrv2_train.boxes import xyxy_to_cxcywh
from rtdetrv2_train.data.loading.dataset import Sample
from rtdetrv2_train.types import Batch, Targets


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of B samples of equal size; boxes become cxcywh.

    The images are ``[B, 3, H, W]`` and channels-last in memory: that is how they were decoded, and what the model
    computes with, so that no byte is moved for the layout. A rank without an image to evaluate on gets an empty batch.
    """
    images = torch.from_numpy(np.stack([s.image for s in samples]) if samples else np.zeros((0, 1, 1, 3), np.uint8))
    targets = Targets.from_list(
        [
            {
                "boxes": xyxy_to_cxcywh(torch.from_numpy(sample.boxes)),
                "labels": torch.from_numpy(sample.labels),
                "image_id": sample.image_id,
                "original_size": sample.original_size,
                "noise_seed": sample.noise_seed,
            }
            for sample in samples
        ]
    )
    return Batch(images.permute(0, 3, 1, 2), targets)
