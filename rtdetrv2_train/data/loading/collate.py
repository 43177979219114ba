"""How samples become a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rtdetrv2_train.boxes import xyxy_to_cxcywh
from rtdetrv2_train.data.augment.mixup import ALONE, blended
from rtdetrv2_train.data.loading.dataset import Sample
from rtdetrv2_train.types import Batch, Targets


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch of B samples of equal size; boxes become cxcywh.

    The images are ``[B, 3, H, W]`` and channels-last in memory: that is how they were decoded, and what the model
    computes with, so that no byte is moved for the layout. A rank without an image to evaluate on gets an empty batch.

    Where the samples say so (MixUp), each image is blended with the one before it, and has the boxes of both. One image
    alone stays as it is.
    """
    share = samples[0].own_share if len(samples) > 1 else ALONE
    pixels = [sample.image for sample in samples]
    if share == ALONE:
        images = np.stack(pixels) if samples else np.zeros((0, 1, 1, 3), np.uint8)
    else:
        images = blended(pixels, share)
    targets = []
    for number, sample in enumerate(samples):
        shown = [sample] if share == ALONE else [sample, samples[number - 1]]
        targets.append(
            {
                "boxes": xyxy_to_cxcywh(torch.from_numpy(np.concatenate([each.boxes for each in shown]))),
                "labels": torch.from_numpy(np.concatenate([each.labels for each in shown])),
                "image_id": sample.image_id,
                "original_size": sample.original_size,
                "noise_seed": sample.noise_seed,
            }
        )
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), Targets.from_list(targets))
