"""Contrastive denoising queries: noisy ground truth that the decoder learns to clean (DINO, arXiv 2203.03605, 3.3).

Shape suffixes: B batch, S queries of one half of a group (the largest number of boxes of an image), T denoising
queries in all (groups x 2 x S), N boxes of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdetrv2_train.batch import Targets
from rtdetrv2_train.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from rtdetrv2_train.model.layers import inverse_sigmoid


@dataclass(frozen=True)
class DenoisingLayout:
    """How denoising queries of a batch are laid out.

    Queries come in groups; a group holds a positive (lightly noised) half, then a negative one, each with ``slots``
    places, of which an image uses as many as it has boxes.

    Attributes:
        num_groups: number of groups.
        slots: places of each half, S.
    """

    num_groups: int
    slots: int

    @classmethod
    def of(cls, counts: tuple[int, ...], num_denoising: int) -> DenoisingLayout:
        """The layout for images with ``counts`` boxes and about ``num_denoising`` positive queries.

        A batch without any box keeps one unused place, so that every process of a distributed run uses the same
        parameters in each step.
        """
        most = max(counts, default=0)
        if most == 0:
            return cls(num_groups=1, slots=1)
        return cls(num_groups=max(num_denoising // most, 1), slots=most)

    @property
    def num_queries(self) -> int:
        """Denoising queries in all, T."""
        return self.num_groups * 2 * self.slots

    def visible(self, num_matching: int, device: torch.device | str = "cpu") -> Tensor:
        """Self-attention mask: groups do not see each other, and matching queries see no denoising query.

        Args:
            num_matching: number of ordinary queries Q, after the denoising ones.
            device: where the mask goes.

        Returns:
            boolean ``[T + Q, T + Q]``, True where the query (row) sees the key (column).
        """
        group = torch.arange(self.num_queries) // (2 * self.slots)
        group = torch.cat([group, torch.full((num_matching,), -1)])
        same = group[:, None] == group[None]
        return (same | (group == -1)[None]).to(device)

    def positive_queries(self, targets: Targets) -> Tensor:
        """Indices of the queries that carry a lightly noised box.

        Returns:
            int64 ``[num_groups, N]``: for each group and each box of the batch its place among the T queries.
        """
        first = 2 * self.slots * torch.arange(self.num_groups, device=targets.labels.device)
        return first[:, None] + slot_of_box(targets)


def slot_of_box(targets: Targets) -> Tensor:
    """The position of each box within its image, int64 ``[N]``, without a loop or a read from the device."""
    first_of_image = torch.searchsorted(targets.image_index, targets.image_index)
    return torch.arange(len(targets.labels), device=targets.labels.device) - first_of_image


def noisy_queries(
    targets: Targets,
    layout: DenoisingLayout,
    class_embedding: nn.Embedding,
    label_noise_ratio: float,
    box_noise_scale: float,
) -> tuple[Tensor, Tensor]:
    """Content and reference boxes of the denoising queries.

    Args:
        targets: ground truth of the batch.
        layout: its layout.
        class_embedding: embeddings of the C classes, and one of padding at index C.
        label_noise_ratio: half of this share of labels is replaced by random ones.
        box_noise_scale: corners of positive boxes move by up to half the side times this, of negative ones by up to
            the whole side.

    Returns:
        content ``[B, T, D]`` and boxes as logits of cxcywh ``[B, T, 4]``.
    """
    device = targets.boxes.device
    batch, slots, num_classes = len(targets), layout.slots, class_embedding.num_embeddings - 1
    slot = slot_of_box(targets)
    labels_BS = torch.full((batch, slots), num_classes, dtype=torch.int64, device=device)
    labels_BS[targets.image_index, slot] = targets.labels
    # where a batch has no box at all its one place holds a harmless box, for the arithmetic below
    boxes_BS4 = torch.zeros(batch, slots, 4, device=device)
    if not sum(targets.counts):
        boxes_BS4 += torch.tensor([0.5, 0.5, 0.1, 0.1], device=device)
    boxes_BS4[targets.image_index, slot] = targets.boxes

    labels_BT = labels_BS.repeat(1, 2 * layout.num_groups)
    boxes_BT4 = boxes_BS4.repeat(1, 2 * layout.num_groups, 1)
    if label_noise_ratio > 0:
        replace = torch.rand_like(labels_BT, dtype=torch.float32) < label_noise_ratio * 0.5
        random_labels = torch.randint_like(labels_BT, 0, num_classes)
        labels_BT = torch.where(replace & (labels_BT != num_classes), random_labels, labels_BT)
    if box_noise_scale > 0:
        half_size = boxes_BT4[..., 2:].repeat(1, 1, 2) * 0.5 * box_noise_scale
        sign = torch.randint_like(boxes_BT4, 0, 2) * 2.0 - 1.0
        negative_T = (torch.arange(layout.num_queries, device=device) // slots) % 2
        distance = torch.rand_like(boxes_BT4) + negative_T[:, None]
        corners = cxcywh_to_xyxy(boxes_BT4) + sign * distance * half_size
        boxes_BT4 = xyxy_to_cxcywh(corners.clamp(min=0, max=1))
    return class_embedding(labels_BT), inverse_sigmoid(boxes_BT4)
