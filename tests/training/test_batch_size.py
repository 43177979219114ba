from __future__ import annotations

import pytest
from torch import nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.layers import FrozenBatchNorm2d
from rtdetrv2_train.training.batch_size import BatchSize, share_out
from tests.support import composed


@pytest.mark.parametrize(
    ("processes", "accumulated", "most", "expected"),
    [
        (1, "auto", None, (1, 16)),
        (4, "auto", None, (1, 4)),
        (4, "auto", 4, (1, 4)),
        (2, "auto", 3, (4, 2)),  # 8 are no multiple of 3
        (1, "auto", 1, (16, 1)),
        (2, 4, None, (4, 2)),
    ],
)
def test_batch_size_per_device_and_gradient_accumulation_follow_from_the_total(
    processes: int, accumulated: int, most: int | None, expected: tuple[int, int]
) -> None:
    assert share_out(16, processes, accumulated, most) == BatchSize(processes, *expected)  # type: ignore[arg-type]


def test_a_split_prints_its_parts() -> None:
    assert str(share_out(16, 2, 4)) == "16 images a step (2 devices x 2 images x 4 batches of gradient accumulation)"
    assert str(share_out(16, 1)) == "16 images a step (1 device x 16 images)"


def test_batchnorm_that_sees_less_than_a_step_is_noted() -> None:
    norms, frozen = nn.Sequential(nn.BatchNorm2d(1)), nn.Sequential(FrozenBatchNorm2d(1))
    assert share_out(16, 1).batchnorm_note(norms, synchronised=False) is None
    assert share_out(16, 4).batchnorm_note(norms, synchronised=True) is None
    assert share_out(16, 4, 2).batchnorm_note(frozen, synchronised=False) is None
    alone = share_out(16, 4).batchnorm_note(norms, synchronised=False)
    assert alone is not None
    assert "from 4 images at a time, not from the 16 of a step; trainer.sync_batchnorm=true" in alone
    accumulated = share_out(16, 2, 2).batchnorm_note(norms, synchronised=True)
    assert accumulated is not None
    assert accumulated.endswith("from 8 images at a time, not from the 16 of a step")


@pytest.mark.parametrize(
    ("total", "processes", "accumulated", "proposal"),
    [
        (16, 6, "auto", "use 12 or 18, or 4 or 8 batches a step"),
        (4, 8, "auto", "use 8, or 4 batches a step"),
        (16, 2, 3, "2 devices with gradient accumulation over 3 batches: use 12 or 18, or 4 or 8 batches"),
    ],
)
def test_an_impossible_split_proposes_possible_ones(
    total: int, processes: int, accumulated: int, proposal: str
) -> None:
    with pytest.raises(UserError, match=proposal):
        share_out(total, processes, accumulated)  # type: ignore[arg-type]


def test_accumulation_that_a_device_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_batch_size_per_device=4 .* batches of 8"):
        share_out(16, 1, 2, 4)


def test_models_set_the_reference_batch_size_of_their_learning_rates() -> None:
    for overrides, total, reference in ((["model=r50vd"], 16, 16), (["experiment=quickstart"], 4, 4)):
        recipe = composed(*overrides).recipe
        assert (recipe.total_batch_size, recipe.reference_batch_size) == (total, reference)
    changed = composed("model=r50vd", "recipe.total_batch_size=64").recipe
    assert (changed.total_batch_size, changed.reference_batch_size) == (64, 16)
