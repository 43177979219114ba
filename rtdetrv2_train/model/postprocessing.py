"""Post-processing: from logits and boxes to detections, without non-maximum suppression (NMS).

Shape suffixes: B batch, Q queries, C classes, K detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtdetrv2_train.boxes import cxcywh_to_xyxy
from rtdetrv2_train.types import Detections


def detections_from(
    logits_BQC: Tensor, boxes_BQ4: Tensor, original_sizes_B2: Tensor, max_detections: int = 300
) -> Detections:
    """Post-processing: the top-scoring pairs of query and class of each image.

    Args:
        logits_BQC: class logits ``[B, Q, C]``.
        boxes_BQ4: cxcywh in [0, 1], ``[B, Q, 4]``.
        original_sizes_B2: (height, width) that the model's input spans in pixels of the original image, ``[B, 2]``:
            the image's size, or more if a letterbox adds a margin.
        max_detections: detections per image, K; fewer if Q x C is smaller.

    Returns:
        detections in pixels of the original images, highest score first.
    """
    num_classes = logits_BQC.shape[-1]
    scores_BP = logits_BQC.float().sigmoid().flatten(1)
    scores_BK, pair_BK = scores_BP.topk(min(max_detections, scores_BP.shape[1]), 1)
    query_BK = torch.div(pair_BK, num_classes, rounding_mode="floor")
    scale_B4 = original_sizes_B2.flip(1).repeat(1, 2).to(boxes_BQ4)
    corners_BQ4 = cxcywh_to_xyxy(boxes_BQ4) * scale_B4[:, None]
    boxes_BK4 = corners_BQ4.gather(1, query_BK[..., None].expand(-1, -1, 4))
    return Detections(labels=pair_BK % num_classes, boxes=boxes_BK4, scores=scores_BK)
