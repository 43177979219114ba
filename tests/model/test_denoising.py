from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rtdetrv2_train.batch import Targets
from rtdetrv2_train.boxes import cxcywh_to_xyxy
from rtdetrv2_train.model.denoising import DenoisingLayout, noisy_queries
from tests.support import REFERENCE, made

EXPECTED = np.load(REFERENCE / "denoising.npz")
COUNTS = [(3, 1), (0, 2), (0, 0), (120, 5)]


@pytest.mark.parametrize("counts", COUNTS)
def test_groups_and_attention_mask_equal_the_reference(counts: tuple[int, int]) -> None:
    case = f"{counts[0]}_{counts[1]}"
    layout = DenoisingLayout.of(counts, num_denoising=100)
    assert layout.num_groups == EXPECTED[f"groups_{case}"]
    assert [layout.num_queries, 300] == EXPECTED[f"split_{case}"].tolist()
    np.testing.assert_array_equal(~layout.visible(300).numpy(), EXPECTED[f"mask_{case}"])


@pytest.mark.parametrize("counts", COUNTS)
def test_positive_queries_equal_the_reference(counts: tuple[int, int]) -> None:
    targets = Targets.from_list(made.targets(list(counts)))
    positive = DenoisingLayout.of(counts, num_denoising=100).positive_queries(targets)
    for image in range(2):
        ours = positive[:, targets.image_index == image].flatten().numpy()
        np.testing.assert_array_equal(ours, EXPECTED[f"pos_{counts[0]}_{counts[1]}_{image}"])


def queries(counts: list[int], label_noise: float, box_noise: float) -> tuple[Targets, DenoisingLayout, torch.Tensor]:
    targets = Targets.from_list(made.targets(counts, num_classes=5))
    layout = DenoisingLayout.of(targets.counts, num_denoising=20)
    torch.manual_seed(0)
    embedding = nn.Embedding(6, 8, padding_idx=5)
    content, box_logits = noisy_queries(targets, layout, embedding, label_noise, box_noise)
    assert content.shape == (len(counts), layout.num_queries, 8)
    return targets, layout, box_logits.sigmoid()


def test_without_noise_every_positive_and_negative_place_holds_its_box() -> None:
    targets, layout, boxes = queries([3, 1], label_noise=0, box_noise=0)
    positive = layout.positive_queries(targets)
    for query in (positive, positive + layout.slots):
        found = boxes[targets.image_index.expand_as(query), query]
        torch.testing.assert_close(found, targets.boxes.expand_as(found), atol=1e-5, rtol=0)


def test_corners_move_by_less_than_half_the_side_in_positives_and_by_up_to_the_side_in_negatives() -> None:
    targets, layout, boxes = queries([3, 1], label_noise=0, box_noise=1)
    positive = layout.positive_queries(targets)
    truth = cxcywh_to_xyxy(targets.boxes)
    side = targets.boxes[:, 2:].repeat(1, 2)
    reach = []
    for query in (positive, positive + layout.slots):
        noisy = boxes[targets.image_index.expand_as(query), query]
        corners = cxcywh_to_xyxy(noisy)
        # the others were clipped at the image's edge, or turned inside out and so lost their size
        inside = (corners > 1e-4) & (corners < 1 - 1e-4) & (noisy[..., 2:] > 1e-3).repeat(1, 1, 2)
        reach.append(((corners - truth).abs() / side)[inside])
    assert reach[0].max() < 0.5 + 1e-3
    assert reach[1].min() > 0.5 - 1e-3
    assert reach[1].max() < 1 + 1e-3


def test_groups_do_not_see_each_other_and_nobody_who_matches_sees_them() -> None:
    layout = DenoisingLayout(num_groups=2, slots=1)
    visible = layout.visible(num_matching=1)
    assert visible.tolist() == [
        [True, True, False, False, True],
        [True, True, False, False, True],
        [False, False, True, True, True],
        [False, False, True, True, True],
        [False, False, False, False, True],
    ]
