"""The training loss: classification (varifocal or MAL), L1 and GIoU, on every set of predictions at once.

Shape suffixes: G prediction sets, B batch, Q queries, C classes, K matched pairs of one set.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetrv2_train.boxes import cxcywh_to_xyxy, overlap
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.loss.matcher import Assignment, HungarianMatcher
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.ops.mal import mal_loss
from rtdetrv2_train.ops.varifocal import varifocal_loss
from rtdetrv2_train.types import Targets

_CLASSIFICATIONS = {"varifocal": "vfl", "mal": "mal"}  # and the names of their terms
_PUBLISHED_GAMMAS = {"varifocal": 2.0, "mal": 1.5}


class Criterion(nn.Module):
    """Loss of RT-DETRv2 (RT-DETR, arXiv 2304.08069, equation 3 and section 4.1).

    Args:
        matcher: assigns queries to boxes.
        vfl_weight: weight of the classification loss.
        box_weight: weight of the L1 loss.
        giou_weight: weight of the GIoU loss.
        alpha: weight of negatives in the varifocal loss; MAL has none.
        gamma: exponent of the predicted score of negatives, and in MAL of the IoU too; None for the published one, 2 or
            1.5 in MAL.
        classification: ``varifocal``, or ``mal``, DEIM's matchability-aware loss.

    Attributes:
        weights: weight of each term, by name: ``vfl`` or ``mal``, ``bbox``, ``giou``.

    Raises:
        UserError: if there is no such classification loss.
    """

    def __init__(
        self,
        matcher: HungarianMatcher | None = None,
        vfl_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.75,
        gamma: float | None = None,
        classification: str = "varifocal",
    ) -> None:
        super().__init__()
        if classification not in _CLASSIFICATIONS:
            raise UserError(f"model.criterion.classification is '{classification}': use varifocal or mal")
        self.matcher = matcher or HungarianMatcher()
        self.classification = classification
        self.weights = {_CLASSIFICATIONS[classification]: vfl_weight, "bbox": box_weight, "giou": giou_weight}
        self.alpha = alpha
        self.gamma = _PUBLISHED_GAMMAS[classification] if gamma is None else gamma

    def forward(self, output: ModelOutput, targets: Targets) -> dict[str, Tensor]:
        """Weighted loss terms.

        Args:
            output: predictions of a model in training mode.
            targets: the ground truth that the model was given. Sums are divided by the number of boxes of the batch,
                or by the mean number that ``targets.step`` gives (over all ranks and gradient accumulation).

        Returns:
            scalars under the reference's names, whose sum is the loss. ``loss_vfl``, ``loss_bbox`` and ``loss_giou``
            are those of the last decoder layer. The same names with ``_aux_i`` are those of the layers before it, with
            ``_enc_0`` those of the encoder's proposals, with ``_dn_i`` those of the denoising queries of layer i. With
            MAL ``vfl`` is ``mal``.

        Raises:
            ValueError: if the output is that of a model in evaluation mode.
        """
        if output.encoder_logits is None or output.encoder_boxes is None:
            raise ValueError("the loss needs the output of a model in training mode: call model.train() first")
        logits_GBQC = _in_full(torch.cat([output.logits, output.encoder_logits[None]]))
        boxes_GBQ4 = _in_full(torch.cat([output.boxes, output.encoder_boxes[None]]))
        pending = self.matcher.begin(logits_GBQC, boxes_GBQ4, targets)
        num_boxes = targets.totals.boxes_per_batch

        num_layers = len(output.logits)
        names = [f"_aux_{layer}" for layer in range(num_layers - 1)] + ["", "_enc_0"]
        parts = []
        if output.denoising is not None:  # runs while the matcher's costs are copied to the host
            layout = output.denoising.layout
            query = layout.positive_queries(targets)
            target = layout.chosen(targets)[0].expand_as(query)
            shared = Assignment(query=query.reshape(1, -1), target=target.reshape(1, -1))
            noisy_logits, noisy_boxes = _in_full(output.denoising.logits), _in_full(output.denoising.boxes)
            terms = self._terms(noisy_logits, noisy_boxes, shared, targets)
            parts.append((terms / (num_boxes * layout.num_groups), [f"_dn_{layer}" for layer in range(num_layers)]))
        parts.append((self._terms(logits_GBQC, boxes_GBQ4, pending.solve(), targets) / num_boxes, names))

        losses: dict[str, Tensor] = {}
        for terms, suffixes in parts:
            keys = [f"loss_{kind}{suffix}" for kind in self.weights for suffix in suffixes]
            losses.update(zip(keys, terms.flatten().unbind(), strict=True))
        return losses

    def _terms(self, logits_GBQC: Tensor, boxes_GBQ4: Tensor, assignment: Assignment, targets: Targets) -> Tensor:
        """Weighted sums of the classification, L1 and GIoU loss of each set, ``[3, G]``."""
        num_sets = len(logits_GBQC)
        set_G1 = torch.arange(num_sets, device=logits_GBQC.device)[:, None]
        image = targets.image_index[assignment.target]
        truth = targets.boxes[assignment.target]
        predicted_GK4 = boxes_GBQ4[set_G1, image, assignment.query]
        iou_GK, giou_GK = overlap(cxcywh_to_xyxy(predicted_GK4), cxcywh_to_xyxy(truth))
        l1_G = (predicted_GK4 - truth).abs().sum((1, 2))
        giou_G = (1 - giou_GK).sum(1)

        at = (set_G1, image, assignment.query, targets.labels[assignment.target])
        if self.classification == "mal":
            classes_G = mal_loss(logits_GBQC, at, iou_GK.detach(), self.gamma)
        else:
            classes_G = varifocal_loss(logits_GBQC, at, iou_GK.detach(), self.alpha, self.gamma)
        return torch.stack(
            [
                classes_G * self.weights[_CLASSIFICATIONS[self.classification]],
                l1_G * self.weights["bbox"],
                giou_G * self.weights["giou"],
            ]
        )


def _in_full(tensor: Tensor) -> Tensor:
    """Cast half precision (AMP) to float32; leave float32 and float64 alone."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
