from __future__ import annotations

from typing import Any

import torch

from rtdetrv2_train.data.loading.step_totals import OptimizerSteps
from rtdetrv2_train.types import Batch, StepTotals, Targets
from tests.support import made


def batches(*counts: list[int]) -> list[Batch]:
    return [Batch(torch.zeros(len(c), 3, 2, 2, dtype=torch.uint8), Targets.from_list(made.targets(c))) for c in counts]


def totals(steps: OptimizerSteps, *counts: list[int]) -> list[Any]:
    return [batch.targets.step for batch in steps.of(batches(*counts))]


def test_a_batch_that_is_a_whole_step_stays_as_it_is() -> None:
    given = batches([2, 1], [0, 0])
    assert [found is batch for found, batch in zip(OptimizerSteps().of(given), given, strict=True)] == [True, True]
    assert given[0].targets.totals == StepTotals(3.0, 2)
    assert given[1].targets.totals == StepTotals(1.0, 0)


def test_accumulated_batches_know_their_mean_and_the_most_boxes_of_an_image() -> None:
    found = totals(OptimizerSteps(batches_per_step=2), [2, 1], [5, 0], [0, 0], [0, 0])
    assert found == [StepTotals(4.0, 5)] * 2 + [StepTotals(0.5, 0)] * 2  # a step without boxes counts one


def test_a_step_is_read_before_its_first_batch_and_no_further() -> None:
    read = []

    def reading() -> Any:
        for batch in batches([1], [2], [3], [4]):
            read.append(batch)
            yield batch

    iterator = iter(OptimizerSteps(batches_per_step=2).of(reading()))
    next(iterator)
    assert len(read) == 2
