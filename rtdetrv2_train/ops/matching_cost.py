"""The cost of matching each ground-truth box with each query of its image.

Shape suffixes: G prediction sets, B batch, Q queries, C classes, N boxes of the batch, R = G x Q.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rtdetrv2_train.boxes import cxcywh_to_xyxy, overlap
from rtdetrv2_train.types import Targets


@dataclass(frozen=True)
class CostWeights:
    """Weights of the terms of the matching cost.

    Attributes:
        class_weight: weight of the focal classification cost.
        box_weight: weight of the L1 distance of normalised cxcywh boxes.
        giou_weight: weight of the negative GIoU.
        alpha: alpha of the focal cost.
        gamma: gamma of the focal cost.
    """

    class_weight: float = 2.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0


def matching_cost_reference(logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets, weights: CostWeights) -> Tensor:
    """The plain formula that :func:`matching_cost` equals, ``[N, G, Q]``."""
    logits_NGQC, boxes_NGQ4 = (x.transpose(0, 1)[targets.image_index] for x in (logits_GBQC, boxes_GBQ4))
    label_N111 = targets.labels[:, None, None, None].expand(*logits_NGQC.shape[:3], 1)
    score = logits_NGQC.gather(3, label_N111)[..., 0].sigmoid()
    positive = weights.alpha * (1 - score) ** weights.gamma * -(score + 1e-8).log()
    negative = (1 - weights.alpha) * score**weights.gamma * -(1 - score + 1e-8).log()
    truth_N114 = targets.boxes[:, None, None]
    l1 = (boxes_NGQ4 - truth_N114).abs().sum(-1)
    giou = overlap(cxcywh_to_xyxy(boxes_NGQ4), cxcywh_to_xyxy(truth_N114))[1]
    return weights.class_weight * (positive - negative) + weights.box_weight * l1 - weights.giou_weight * giou


def matching_cost(logits_GBQC: Tensor, boxes_GBQ4: Tensor, targets: Targets, weights: CostWeights) -> Tensor:
    """The cost of each pair of a ground-truth box and a query of its image.

    Args:
        logits_GBQC: class logits, ``[G, B, Q, C]``.
        boxes_GBQ4: cxcywh in [0, 1], ``[G, B, Q, 4]``.
        targets: ground truth with N boxes.
        weights: weights of the terms.

    Returns:
        ``[N, G, Q]``.
    """
    # Take two intervals with centres c, c' and half lengths h, h'; let d be the larger of |c - c'| and |h - h'|. Their
    # hull has length h + h' + d and their intersection h + h' - d. So the differences of the L1 cost give GIoU too,
    # without corners. Each coordinate is contiguous in memory, which makes every operation faster.
    num_classes = logits_GBQC.shape[-1]
    truth_N5 = _centre_half_area(targets.boxes)
    predicted_BR5 = _centre_half_area(boxes_GBQ4.transpose(0, 1).flatten(1, 2))
    predicted_N5R = predicted_BR5.transpose(1, 2).contiguous().index_select(0, targets.image_index)
    truth_N51 = truth_N5[..., None]
    distance_N4R = (predicted_N5R[:, :4] - truth_N51[:, :4]).abs_()
    centre_N2R, half_N2R = distance_N4R[:, :2], distance_N4R[:, 2:]
    cost_NR = torch.add(centre_N2R, half_N2R, alpha=2).sum(1).mul_(weights.box_weight)

    shift_N2R = torch.maximum(centre_N2R, half_N2R)
    reach_N2R = predicted_N5R[:, 2:4] + truth_N51[:, 2:4]
    width_NR, height_NR = (reach_N2R - shift_N2R).clamp_(min=0).unbind(1)
    intersection_NR = width_NR.mul_(height_NR)
    width_NR, height_NR = reach_N2R.add_(shift_N2R).unbind(1)
    hull_NR = width_NR.mul_(height_NR)
    union_NR = (predicted_N5R[:, 4] + truth_N51[:, 4]).sub_(intersection_NR)
    cost_NR.sub_(intersection_NR.div_(union_NR), alpha=weights.giou_weight)
    cost_NR.sub_(union_NR.div_(hull_NR).sub_(1), alpha=weights.giou_weight)

    of_class = logits_GBQC.permute(1, 3, 0, 2).reshape(-1, cost_NR.shape[1])  # one row for each image and class
    score_NR = of_class.index_select(0, targets.image_index * num_classes + targets.labels).sigmoid_()
    absence_NR = 1 - score_NR
    negative_NR, positive_NR = score_NR.pow(weights.gamma), absence_NR.pow(weights.gamma)
    focal = weights.class_weight
    cost_NR.addcmul_(negative_NR, absence_NR.add_(1e-8).log_(), value=focal * (1 - weights.alpha))
    cost_NR.addcmul_(positive_NR, score_NR.add_(1e-8).log_(), value=-focal * weights.alpha)
    return cost_NR.unflatten(1, (len(logits_GBQC), -1))


def _centre_half_area(boxes: Tensor) -> Tensor:
    """From cxcywh ``[..., 4]`` to centre x, centre y, half width, half height and area, ``[..., 5]``."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] * 0.5, boxes[..., 2:].prod(-1, keepdim=True)], -1)
