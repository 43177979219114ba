from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from lightning.fabric.utilities.data import _set_sampler_epoch
from torch.utils.data import DataLoader

from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.samplers import (
    EvalBatchSampler,
    SampleRequest,
    TrainBatchSampler,
    repeat_factors,
    scaled_size,
)

SCALES = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]
SCHEDULE = AugmentationSchedule({"multiscale": {"stop": 2}}, 4, 4)


def sampler(num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1, **changes: Any) -> TrainBatchSampler:
    arguments: dict[str, Any] = {"seed": 3, "image_size": (640, 640), "scales": SCALES, "schedule": SCHEDULE, **changes}
    return TrainBatchSampler(num_samples, batch_size, rank=rank, world_size=world_size, **arguments)


def test_two_ranks_see_the_batches_of_one() -> None:
    alone = sampler(50, 8)
    ranks = [sampler(50, 4, rank, 2) for rank in (0, 1)]
    for epoch in (0, 1, 2):
        for each in (alone, *ranks):
            each.set_epoch(epoch)
        together = [first + second for first, second in zip(*ranks, strict=True)]
        assert together == list(alone)
        assert len(alone) == len(ranks[0]) == len(together) == 6


@pytest.mark.parametrize(("world_size", "accumulated"), [(1, 2), (2, 2), (1, 8), (4, 2)])
def test_accumulated_batches_make_up_the_steps_of_one_large_batch(world_size: int, accumulated: int) -> None:
    # 45 images: five whole steps of 8, and no part of a sixth that would be a smaller step
    alone, share = sampler(45, 8), 8 // (world_size * accumulated)
    ranks = [sampler(45, share, rank, world_size, batches_per_step=accumulated) for rank in range(world_size)]
    for epoch in (0, 1):
        for each in (alone, *ranks):
            each.set_epoch(epoch)
        steps = [[] for _ in range(5)]
        for batches in map(list, ranks):
            assert len(batches) == 5 * accumulated == len(ranks[0])
            for number, batch in enumerate(batches):
                steps[number // accumulated] += batch
        assert [sorted(step) for step in steps] == [sorted(step) for step in alone]


def test_ranks_share_out_the_images_without_repetition() -> None:
    indices = [request.index for rank in range(4) for batch in sampler(64, 4, rank, 4) for request in batch]
    assert sorted(indices) == list(range(64))


def test_epochs_are_shuffled_anew_and_repeatably() -> None:
    one, other = sampler(40, 4), sampler(40, 4)
    orders = []
    for epoch in (0, 1, 5):
        one.set_epoch(epoch)
        other.set_epoch(epoch)
        assert list(one) == list(other)
        orders.append([request.index for batch in one for request in batch])
        assert {request.epoch for batch in one for request in batch} == {epoch}
    assert orders[0] != orders[1] != orders[2]
    assert [request.index for batch in sampler(40, 4, seed=4) for request in batch] != orders[0]
    assert [request.index for batch in sampler(8, 4, shuffle=False) for request in batch] == list(range(8))


def test_batches_have_one_size_that_multiscale_draws_until_it_stops() -> None:
    batches = sampler(4000, 4)
    sizes: Counter[tuple[int, int]] = Counter()
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        for batch in batches:
            (size,) = {(request.height, request.width) for request in batch}
            sizes[size] += 1
    assert set(sizes) == {(scale, scale) for scale in SCALES}
    # 640 stands three times among 13; 2,000 draws have a standard deviation of 19.
    assert abs(sizes[640, 640] - 2000 * 3 / 13) < 76
    batches.set_epoch(2)
    assert {(request.height, request.width) for batch in batches for request in batch} == {(640, 640)}


def test_without_scales_the_image_size_stays() -> None:
    for scales in (None, []):
        batches = sampler(40, 4, scales=scales, image_size=(320, 480))
        assert {(request.height, request.width) for batch in batches for request in batch} == {(320, 480)}


def test_scales_are_relative_to_640_and_multiples_of_32() -> None:
    assert [scaled_size((640, 640), scale) for scale in SCALES] == [(scale, scale) for scale in SCALES]
    assert scaled_size((320, 480), 800) == (416, 608)
    assert scaled_size((320, 480), 640) == (320, 480)
    assert scaled_size((32, 32), 480) == (32, 32)


@pytest.mark.parametrize(("num_samples", "world_size"), [(5, 1), (5, 2), (15, 2), (1, 1)])
def test_a_set_smaller_than_a_batch_still_trains(num_samples: int, world_size: int) -> None:
    batches = [list(sampler(num_samples, 16 // world_size, rank, world_size)) for rank in range(world_size)]
    assert [len(of_rank) for of_rank in batches] == [1] * world_size
    requests = [request for of_rank in batches for request in of_rank[0]]
    assert len(requests) == 16
    assert {request.index for request in requests} == set(range(num_samples))
    assert len(set(requests)) == 16, "an image that is repeated must not be repeated bit by bit"


def test_drop_last_leaves_out_what_does_not_fill_a_batch() -> None:
    assert [len(batch) for batch in sampler(50, 16)] == [16, 16, 16]
    complete = list(sampler(50, 16, drop_last=False))
    assert [len(batch) for batch in complete] == [16] * 4
    assert {request.index for batch in complete for request in batch} == set(range(50))


def test_lightning_announces_the_epoch_to_the_batch_sampler() -> None:
    batches = sampler(40, 4)
    loader: DataLoader[Any] = DataLoader(range(40), batch_sampler=batches)  # type: ignore[arg-type]
    _set_sampler_epoch(loader, 3)
    assert {request.epoch for batch in batches for request in batch} == {3}


@pytest.mark.parametrize(("num_samples", "world_size"), [(50, 1), (50, 3), (50, 4), (2, 3)])
def test_evaluation_sees_every_image_exactly_once(num_samples: int, world_size: int) -> None:
    ranks = [EvalBatchSampler(num_samples, 4, (64, 96), rank, world_size) for rank in range(world_size)]
    requests = [request for batches in ranks for batch in batches for request in batch]
    assert sorted(request.index for request in requests) == list(range(num_samples))
    assert requests[0] == SampleRequest(0, 0, 64, 96)
    assert all(len(list(batches)) == len(batches) for batches in ranks)
    assert max(len(batch) for batches in ranks for batch in batches) <= 4


def test_rare_classes_are_repeated_as_often_as_lvis_says(make_set: Any) -> None:
    def box(number: int, image: int, category_id: int) -> dict[str, Any]:
        return {"id": number, "image_id": 10 + image, "category_id": category_id, "bbox": [0, 0, 9, 9]}

    # Class 3 in all of 16 images but the last, class 7 twice in the first one only.
    boxes = [box(1 + image, image, 3) for image in range(15)] + [box(20, 0, 7), box(21, 0, 7)]
    annotations = load_annotations(*make_set(16, annotations=boxes))
    factors = repeat_factors(annotations, threshold=0.5)
    assert factors.tolist() == [pytest.approx(8**0.5)] + [1.0] * 15


def test_repeated_images_come_as_often_as_wanted_over_the_epochs() -> None:
    wanted = np.array([2.75, 1.0, 1.5, 1.0, 1.2, 1.0])
    batches = sampler(6, 2, repeats=wanted)
    counts = np.zeros((400, 6))
    for epoch in range(400):
        batches.set_epoch(epoch)
        requests = [request for batch in batches for request in batch]
        assert len(requests) == len(set(requests)) == 8, "equal requests would give equal bits"
        for request in requests:
            counts[epoch, request.index] += 1
    assert np.abs(counts - wanted * 8 / wanted.sum()).max() < 1
    np.testing.assert_allclose(counts.mean(axis=0), wanted * 8 / wanted.sum(), atol=0.1)


def test_ranks_share_out_repeated_images() -> None:
    wanted = np.linspace(1, 3, 20)
    alone = [request for batch in sampler(20, 4, repeats=wanted) for request in batch]
    ranks = [sampler(20, 2, rank, 2, repeats=wanted) for rank in (0, 1)]
    assert [request for pair in zip(*ranks, strict=True) for batch in pair for request in batch] == alone
