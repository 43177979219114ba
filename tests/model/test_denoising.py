from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rtdetrv2_train.boxes import cxcywh_to_xyxy
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.denoising import DenoisingLayout, noisy_queries, random_bits
from rtdetrv2_train.types import StepTotals, Targets
from tests.support import REFERENCE, made, small_model

EXPECTED = np.load(REFERENCE / "denoising.npz")
COUNTS = [(3, 1), (0, 2), (0, 0), (120, 5)]


@pytest.mark.parametrize("counts", COUNTS)
def test_groups_and_attention_mask_equal_the_reference(counts: tuple[int, int]) -> None:
    case = f"{counts[0]}_{counts[1]}"
    layout = DenoisingLayout.of(max(counts), num_denoising=100)
    assert layout.num_groups == EXPECTED[f"groups_{case}"]
    assert [layout.num_queries, 300] == EXPECTED[f"split_{case}"].tolist()
    np.testing.assert_array_equal(~layout.attention_mask(300).numpy(), EXPECTED[f"mask_{case}"])


@pytest.mark.parametrize("counts", COUNTS)
def test_positive_queries_equal_the_reference(counts: tuple[int, int]) -> None:
    targets = Targets.from_list(made.targets(list(counts)))
    positive = DenoisingLayout.of(max(counts), num_denoising=100).positive_queries(targets)
    for image in range(2):
        ours = positive[:, targets.image_index == image].flatten().numpy()
        np.testing.assert_array_equal(ours, EXPECTED[f"pos_{counts[0]}_{counts[1]}_{image}"])


def queries(counts: list[int], label_noise: float, box_noise: float) -> tuple[Targets, DenoisingLayout, torch.Tensor]:
    targets = Targets.from_list(made.targets(counts, num_classes=5))
    layout = DenoisingLayout.of(max(counts), num_denoising=20)
    torch.manual_seed(0)
    embedding = nn.Embedding(6, 8, padding_idx=5)
    content, box_logits = noisy_queries(targets, layout, embedding, label_noise, box_noise)
    assert content.shape == (len(counts), layout.num_queries, 8)
    return targets, layout, box_logits.sigmoid()


def test_without_noise_every_positive_and_negative_slot_holds_its_box() -> None:
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
        # leave out boxes that were clipped at the image's edge, or whose corners swapped sides
        inside = (corners > 1e-4) & (corners < 1 - 1e-4) & (noisy[..., 2:] > 1e-3).repeat(1, 1, 2)
        reach.append(((corners - truth).abs() / side)[inside])
    assert reach[0].max() < 0.5 + 1e-3
    assert reach[1].min() > 0.5 - 1e-3
    assert reach[1].max() < 1 + 1e-3


def test_more_boxes_than_slots_share_them_by_turns_and_no_slot_is_taken_twice() -> None:
    counts = [7, 3, 0, 12]
    plain = Targets.from_list(made.targets(counts, num_classes=5))
    seen = torch.zeros(sum(counts))
    for seed in range(60):
        targets = replace(plain, noise_seeds=torch.tensor([2**63 - 1 - seed, seed, 5, seed * 10**17 + 3]))
        layout = DenoisingLayout.of(12, num_denoising=20, max_slots=5)
        assert (layout.num_groups, layout.slots, layout.num_queries) == (4, 5, 40)
        box, slot = layout.chosen(targets)
        image = targets.image_index[box]
        assert torch.bincount(image, minlength=4).tolist() == [5, 3, 0, 5]
        assert len(set(zip(image.tolist(), slot.tolist(), strict=True))) == 13
        assert slot[image == 1].tolist() == [0, 1, 2]
        seen[box] += 1
        content, boxes = noisy_queries(targets, layout, nn.Embedding(6, 8, padding_idx=5), 0, 0)
        query = layout.positive_queries(targets)
        torch.testing.assert_close(
            boxes.sigmoid()[image.expand_as(query), query], targets.boxes[box].expand(4, -1, -1), atol=1e-5, rtol=0
        )
        assert content.isfinite().all()
    assert seen.min() > 10


def test_below_the_bound_nothing_changes() -> None:
    targets = Targets.from_list(made.targets([3, 12], num_classes=5))
    assert DenoisingLayout.of(12, 20, max_slots=12) == DenoisingLayout.of(12, 20)
    box, slot = DenoisingLayout.of(12, 20, max_slots=12).chosen(targets)
    assert box.tolist() == list(range(15))
    assert slot.tolist() == [*range(3), *range(12)]


def test_a_crowded_image_trains_with_bounded_queries() -> None:
    torch.manual_seed(0)
    model = small_model(num_denoising=10)
    assert model.architecture.decoder.max_denoising_boxes == 1000
    model.decoder.max_denoising_boxes = 20
    boxes = torch.rand(500, 4) * 0.1 + torch.tensor([0.4, 0.4, 0.05, 0.05])
    crowded = {"boxes": boxes, "labels": torch.arange(500) % 4, "noise_seed": 3}
    few = {"boxes": boxes[:4], "labels": torch.arange(4), "noise_seed": 4}
    targets = Targets.from_list([crowded, few])
    model.train()
    output = model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), targets)
    assert output.denoising is not None
    assert output.denoising.logits.shape[2] == 40
    losses = Criterion()(output, targets)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(value.isfinite() for value in losses.values())
    assert losses["loss_bbox_dn_0"] > 0


def test_attention_mask_hides_other_groups_and_hides_denoising_from_matching_queries() -> None:
    layout = DenoisingLayout(num_groups=2, slots=1)
    attends = layout.attention_mask(num_matching=1)
    assert attends.tolist() == [
        [True, True, False, False, True],
        [True, True, False, False, True],
        [False, False, True, True, True],
        [False, False, True, True, True],
        [False, False, False, False, True],
    ]


def test_noise_of_an_image_depends_on_its_seed_and_its_boxes_alone() -> None:
    boxes = made.targets([3, 1, 2], num_classes=5)
    seeded = [{**target, "noise_seed": 100 + number} for number, target in enumerate(boxes)]
    embedding = nn.Embedding(6, 8, padding_idx=5)
    layout = DenoisingLayout.of(3, num_denoising=20)

    def noisy(targets: list[dict[str, object]]) -> list[torch.Tensor]:
        step = StepTotals(boxes_per_batch=2.0, most_boxes=3)
        return list(noisy_queries(replace(Targets.from_list(targets), step=step), layout, embedding, 0.5, 1.0))

    together, apart, again = noisy(seeded), noisy([seeded[2]]), noisy([{**seeded[2], "noise_seed": 7}])
    for all_images, alone, other_seed in zip(together, apart, again, strict=True):
        assert torch.equal(all_images[2], alone[0])
        assert not torch.equal(alone, other_seed)


def test_noise_does_not_depend_on_the_number_of_slots() -> None:
    seeds = torch.tensor([5, 2**62])
    small = random_bits(seeds, DenoisingLayout(2, 3), 5).view(2, 2, 2, 3, 5)
    large = random_bits(seeds, DenoisingLayout(4, 8), 5).view(2, 4, 2, 8, 5)
    assert torch.equal(small, large[:, :2, :, :3])


def test_random_bits_are_those_of_splitmix64() -> None:
    # the published generator's first and third outputs for seed 1234567
    bits = random_bits(torch.tensor([1234567]), DenoisingLayout(1, 1), 6)[0, 0]
    assert [value % 2**64 for value in bits[[1, 3]].tolist()] == [6457827717110365317, 9817491932198370423]


def test_random_bits_are_uniform_and_independent() -> None:
    # of 1,000 images; a share of n coin throws has a standard deviation of 0.5 / sqrt(n)
    seeds = torch.from_numpy(np.random.default_rng(0).integers(2**63, size=1000))
    bits = random_bits(seeds, DenoisingLayout(5, 4), 5)
    coins = ((bits.flatten()[:, None] >> torch.arange(64)) & 1).double()
    assert (coins.mean(0) - 0.5).abs().max() < 4.5 * 0.5 / len(coins) ** 0.5
    correlation = torch.corrcoef(coins.T) - torch.eye(64)
    assert correlation.abs().max() < 5 / len(coins) ** 0.5
    shares = ((bits >> 40) & (2**24 - 1)).double() / 2**24  # what noise is made of: [image, query, number]
    for one, other in ((shares[1:], shares[:-1]), (shares[:, 1:], shares[:, :-1]), (shares[..., 1:], shares[..., :-1])):
        pairs = torch.stack([one.flatten(), other.flatten()])
        assert torch.corrcoef(pairs)[0, 1].abs() < 4.5 / pairs.shape[1] ** 0.5
    observed = torch.histc(shares, 100, 0, 1)
    expected = shares.numel() / 100
    assert ((observed - expected) ** 2 / expected).sum() < 160  # chi-squared with 99 degrees of freedom: 1 in 10,000


def test_a_quarter_of_the_labels_is_replaced_and_corners_move_to_either_side() -> None:
    seeds = np.random.default_rng(0).integers(2**63, size=10_000)
    targets = Targets.from_list(
        [{"boxes": [[0.5, 0.5, 0.2, 0.2]], "labels": [2], "noise_seed": seed} for seed in seeds]
    )
    layout = DenoisingLayout.of(1, num_denoising=1)
    embedding = nn.Embedding(6, 1, padding_idx=5)
    nn.init.zeros_(embedding.weight)
    with torch.no_grad():
        embedding.weight[:5, 0] = torch.arange(5)
    content, box_logits = noisy_queries(targets, layout, embedding, 0.5, 1.0)
    labels = content.flatten().long().bincount(minlength=5) / content.numel()
    # a quarter of 20,000 is replaced by any of five classes; 0.8 has a standard deviation of 0.003
    torch.testing.assert_close(labels, torch.tensor([0.05, 0.05, 0.8, 0.05, 0.05]), atol=0.01, rtol=0)
    moved = (cxcywh_to_xyxy(box_logits.sigmoid()) - torch.tensor([0.4, 0.4, 0.6, 0.6])) / 0.1
    positive, negative = moved[:, 0], moved[:, 1]
    assert positive.mean().abs() < 0.03
    assert negative.mean().abs() < 0.08
    # of |uniform| on [0, 1) and [1, 2); boxes whose corners swapped sides are left out
    assert positive.abs().mean().item() == pytest.approx(0.5, abs=0.02)
