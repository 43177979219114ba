"""A training step dispatches few operations, whatever the machine."""

from __future__ import annotations

import torch

from benchmarks.counting import OperationCounter
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.types import Targets
from tests.support import build, composed, made


def test_a_step_of_r50vd_dispatches_few_operations_and_reads_nothing() -> None:
    model = build(composed("model=r50vd"))
    images, targets = made.image("images", 4, 64, 64), Targets.from_list(made.targets([8] * 4))
    model(images, targets)  # fills the caches of tensors that depend on shapes alone
    with OperationCounter() as forward:
        output = model(images, targets)
    loss = torch.stack(tuple(Criterion()(output, targets).values())).sum()
    with OperationCounter() as backward:
        loss.backward()
    assert forward.operations <= 1800  # the authors' code: 2,504
    assert backward.operations <= 3260  # in proportion; the authors' code: 4,538
    assert forward.reads == backward.reads == 0
