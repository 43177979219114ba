"""Box arithmetic shared by model, loss and training.

There are two formats. ``cxcywh`` (centre, size) is what the model predicts, normalised to [0, 1] by the image's width
and height. ``xyxy`` (left, top, right, bottom) is what IoU is computed from. All functions are differentiable and take
any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert boxes from centre and size to corners.

    Args:
        boxes: ``[..., 4]`` as (centre x, centre y, width, height).

    Returns:
        ``[..., 4]`` as (left, top, right, bottom), in the same unit.
    """
    centre, size = boxes[..., :2], boxes[..., 2:]
    half = size * 0.5
    return torch.cat([centre - half, centre + half], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert boxes from corners to centre and size.

    Args:
        boxes: ``[..., 4]`` as (left, top, right, bottom).

    Returns:
        ``[..., 4]`` as (centre x, centre y, width, height), in the same unit.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union (IoU) and generalised IoU (GIoU), elementwise with broadcasting.

    Args:
        boxes: ``[..., 4]`` corners (xyxy).
        others: corners, broadcastable against ``boxes``; for all pairs pass ``a[:, None]`` and ``b[None]``.

    Returns:
        ``(iou, giou)``, each ``[...]``: IoU in [0, 1] and GIoU in [-1, 1] (Rezatofighi et al., CVPR 2019, eq. 1-3).
    """
    size = boxes[..., 2:] - boxes[..., :2]
    other_size = others[..., 2:] - others[..., :2]
    shared = (torch.min(boxes[..., 2:], others[..., 2:]) - torch.max(boxes[..., :2], others[..., :2])).clamp(min=0)
    hull = (torch.max(boxes[..., 2:], others[..., 2:]) - torch.min(boxes[..., :2], others[..., :2])).clamp(min=0)
    intersection = shared[..., 0] * shared[..., 1]
    union = size[..., 0] * size[..., 1] + other_size[..., 0] * other_size[..., 1] - intersection
    hull_area = hull[..., 0] * hull[..., 1]
    iou = intersection / union
    return iou, iou - (hull_area - union) / hull_area
