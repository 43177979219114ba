"""Contrastive denoising queries: noisy ground truth that the decoder learns to denoise (DINO, arXiv 2203.03605, 3.3).

Shape suffixes: B batch, S slots of one half of a group (the largest number of boxes of an image, or its bound), T
denoising queries in all (groups x 2 x S), Q matching queries, N boxes of the batch, M of them with denoising queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdetrv2_train.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from rtdetrv2_train.model.layers import inverse_sigmoid
from rtdetrv2_train.types import Targets

_GOLDEN_GAMMA = -0x61C8864680B583EB  # SplitMix64's odd step, 2^64 divided by the golden ratio, as a signed integer
_SPREAD = 1_000_003  # a prime, larger than the number of boxes of an image
_LOW_BITS = (1 << 39) - 1  # bits that _uniform does not use


@dataclass(frozen=True)
class DenoisingLayout:
    """How the denoising queries of a batch are laid out.

    Queries come in groups. A group has a positive (lightly noised) half, then a negative half. Each half has ``slots``
    slots, of which an image uses as many as it has boxes. Of an image with more boxes as many as there are slots have
    denoising queries.

    Attributes:
        num_groups: number of groups.
        slots: slots of each half, S.
    """

    num_groups: int
    slots: int

    @classmethod
    def of(cls, most_boxes: int, num_denoising: int, max_slots: int | None = None) -> DenoisingLayout:
        """The layout for images with up to ``most_boxes`` boxes and about ``num_denoising`` positive queries.

        There are at most ``max_slots`` slots; None for as many as boxes.

        Without any box there is one unused slot, so that every step uses the same parameters (DDP needs that).
        """
        if most_boxes == 0:
            return cls(num_groups=1, slots=1)
        slots = min(most_boxes, max_slots or most_boxes)
        return cls(num_groups=max(num_denoising // slots, 1), slots=slots)

    @property
    def num_queries(self) -> int:
        """Denoising queries in all, T."""
        return self.num_groups * 2 * self.slots

    def attention_mask(self, num_matching: int, device: torch.device | str = "cpu") -> Tensor:
        """Attention mask for self-attention: groups do not see each other, matching queries see no denoising query.

        Args:
            num_matching: number of matching queries Q, which come after the denoising queries.
            device: device of the mask.

        Returns:
            boolean ``[T + Q, T + Q]``, True where the query (row) attends to the key (column).
        """
        group = torch.arange(self.num_queries + num_matching, device=device) // (2 * self.slots)
        matching = group >= self.num_groups
        group = group.masked_fill(matching, self.num_groups)
        return (group[:, None] == group[None]) | matching[None]

    def positive_queries(self, targets: Targets) -> Tensor:
        """Indices of the queries that carry a lightly noised box.

        Returns:
            int64 ``[num_groups, M]``: for each group and each of the ``chosen`` boxes its index among the T queries.
        """
        first = 2 * self.slots * torch.arange(self.num_groups, device=targets.labels.device)
        return first[:, None] + self.chosen(targets)[1]

    def chosen(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """The boxes that have denoising queries, and their slots: all, unless an image has more boxes than slots.

        The seed of such an image decides, so that every epoch has others.

        Returns:
            int64 ``[M]`` each: indices among the N boxes, and slots.
        """
        slot_N = slot_of_box(targets)
        if max(targets.counts, default=0) <= self.slots:
            return torch.arange(len(slot_N), device=slot_N.device), slot_N
        end_N = torch.searchsorted(targets.image_index, targets.image_index, right=True)
        count_N = end_N - torch.searchsorted(targets.image_index, targets.image_index)
        seed_N = targets.noise_seeds[targets.image_index] if len(targets.noise_seeds) else torch.zeros_like(slot_N)
        mixed_N = (slot_N * _SPREAD + seed_N % count_N) % count_N
        slot_N = torch.where(count_N > self.slots, mixed_N, slot_N)
        num_chosen = sum(min(count, self.slots) for count in targets.counts)
        box_M = (
            (slot_N >= self.slots).to(torch.uint8).argsort(stable=True)[:num_chosen]
        )  # nonzero would wait for the GPU
        return box_M, slot_N[box_M]


def slot_of_box(targets: Targets) -> Tensor:
    """The index of each box within its image, int64 ``[N]``, without a loop or a device-to-host read."""
    first_of_image = torch.searchsorted(targets.image_index, targets.image_index)
    return torch.arange(len(targets.labels), device=targets.labels.device) - first_of_image


def random_bits(seeds_B: Tensor, layout: DenoisingLayout, numbers: int) -> Tensor:
    """Random bits that depend on nothing but the image's seed, the half and the slot.

    They come from SplitMix64 (Steele et al., OOPSLA 2014), a counter-based generator. So other images of the batch and
    the number of slots change nothing.

    Args:
        seeds_B: int64 ``[B]``.
        layout: of the batch.
        numbers: integers for each query, at most 8.

    Returns:
        int64 ``[B, T, numbers]``.
    """
    device = seeds_B.device
    half = torch.arange(2 * layout.num_groups, device=device)[:, None, None] << 32
    slot = torch.arange(layout.slots, device=device)[:, None] << 3
    place_TN = (half + slot + torch.arange(numbers, device=device)).flatten(0, 1)
    bits_BTN = seeds_B[:, None, None] + place_TN * _GOLDEN_GAMMA
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits_BTN = (bits_BTN ^ _shifted_right(bits_BTN, shift)) * factor
    return bits_BTN ^ _shifted_right(bits_BTN, 31)


def _shifted_right(bits: Tensor, places: int) -> Tensor:
    """Logical shift right; PyTorch shifts signed integers arithmetically."""
    return (bits >> places) & ((1 << 64 - places) - 1)


def _uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1) from the upper 24 bits."""
    return _shifted_right(bits, 40).to(dtype) * 2.0**-24


def _noise_seeds(targets: Targets) -> Tensor:
    """Seeds of the targets, or random ones for targets made by hand, which have none."""
    if len(targets.noise_seeds) == len(targets):
        return targets.noise_seeds
    return torch.randint(2**62, (len(targets),), device=targets.boxes.device)


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
        layout: layout of the denoising queries.
        class_embedding: embeddings of the C classes, and one for padding at index C.
        label_noise_ratio: half of this fraction of the labels is replaced by random labels.
        box_noise_scale: corners of positives move by up to half the side times this, corners of negatives by half to
            the whole side times this.

    Returns:
        content ``[B, T, D]`` and boxes as logits of cxcywh ``[B, T, 4]``.
    """
    device = targets.boxes.device
    batch, slots, num_classes = len(targets), layout.slots, class_embedding.num_embeddings - 1
    box_M, slot_M = layout.chosen(targets)
    image_M = targets.image_index[box_M]
    labels_BS = torch.full((batch, slots), num_classes, dtype=torch.int64, device=device)
    labels_BS[image_M, slot_M] = targets.labels[box_M]
    # if the whole step has no box, its one slot holds a valid box, so that the arithmetic below gives no NaN
    boxes_BS4 = targets.boxes.new_zeros(batch, slots, 4)
    if not targets.totals.most_boxes:
        boxes_BS4[..., :2] = 0.5
        boxes_BS4[..., 2:] = 0.1
    boxes_BS4[image_M, slot_M] = targets.boxes[box_M]

    labels_BT = labels_BS.repeat(1, 2 * layout.num_groups)
    boxes_BT4 = boxes_BS4.repeat(1, 2 * layout.num_groups, 1)
    bits_BT5 = random_bits(_noise_seeds(targets), layout, 5)  # four for the corners, one for the label
    if label_noise_ratio > 0:
        bits_BT = bits_BT5[..., 4]
        replace = _uniform(bits_BT, torch.float32) < label_noise_ratio * 0.5
        random_labels = (bits_BT & _LOW_BITS) % num_classes
        labels_BT = torch.where(replace & (labels_BT != num_classes), random_labels, labels_BT)
    if box_noise_scale > 0:
        bits_BT4 = bits_BT5[..., :4]
        half_size = boxes_BT4[..., 2:].repeat(1, 1, 2) * 0.5 * box_noise_scale
        sign = (bits_BT4 & 1) * 2 - 1
        negative_T = (torch.arange(layout.num_queries, device=device) // slots) % 2
        distance = _uniform(bits_BT4, boxes_BT4.dtype) + negative_T[:, None]
        corners = cxcywh_to_xyxy(boxes_BT4) + sign * distance * half_size
        boxes_BT4 = xyxy_to_cxcywh(corners.clamp(min=0, max=1))
    return class_embedding(labels_BT), inverse_sigmoid(boxes_BT4)
