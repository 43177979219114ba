"""Batches that run out of memory (OOM) are split, with the same gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train import build_criterion, build_model
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.oom import SplitOnOOM
from rtdetrv2_train.types import Batch, Targets


class Step:
    """A model with frozen BatchNorm, so that images are independent, on a device that runs out of memory."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = build_model("nano", num_classes=3).double()
        for part in self.model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        self.criterion = build_criterion("nano")
        self.most_in_forward = self.most_in_backward = 100
        self.sizes: list[int] = []
        # the hook runs after a part of the gradient has been accumulated
        self.model.get_parameter("backbone.conv1.conv1_1.conv.weight").register_hook(self._run_out)

    def loss(self, batch: Batch) -> Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.most_in_forward:
            raise torch.OutOfMemoryError
        return torch.stack(tuple(self.criterion(self.model(batch.images, batch.targets), batch.targets).values())).sum()

    def _run_out(self, *_: Any) -> None:
        if self.sizes[-1] > self.most_in_backward:
            raise torch.OutOfMemoryError

    def gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    boxes = [torch.rand(count, 4, generator=generator).double() * 0.4 + 0.1 for count in (3, 0, 1, 2, 1, 4)]
    targets = [{"boxes": b, "labels": [1] * len(b), "image_id": i, "noise_seed": i} for i, b in enumerate(boxes)]
    return Batch(torch.rand(6, 3, 64, 64, generator=generator).double(), Targets.from_list(targets))


@pytest.fixture
def expected(batch: Batch) -> tuple[float, Tensor]:
    whole = Step()
    loss = whole.loss(batch)
    loss.backward()
    return float(loss), whole.gradient()


@pytest.mark.parametrize("where", ["most_in_forward", "most_in_backward"])
def test_a_split_batch_has_the_gradient_of_the_whole(batch: Batch, expected: tuple[float, Tensor], where: str) -> None:
    step, limit = Step(), SplitOnOOM()
    setattr(step, where, 3)
    limit.loss(batch, step.loss, step.model.zero_grad).backward()
    assert step.sizes == [6, 3, 3]
    torch.testing.assert_close(step.gradient(), expected[1], rtol=1e-6, atol=1e-9)
    step.model.zero_grad()
    assert (
        float(limit.loss(batch, step.loss, step.model.zero_grad)) == 0
    )  # known to be too large: no attempt with the whole batch
    assert step.sizes == [6, 3, 3]


def test_a_batch_that_fits_stays_whole(batch: Batch, expected: tuple[float, Tensor]) -> None:
    step, limit = Step(), SplitOnOOM()
    loss = limit.loss(batch, step.loss, step.model.zero_grad)
    (2 * loss).backward()
    assert float(loss) == expected[0]
    assert torch.equal(step.gradient(), 2 * expected[1])
    assert step.sizes == [6]


def test_smaller_images_stay_whole_where_larger_ones_are_split(batch: Batch) -> None:
    step, limit = Step(), SplitOnOOM()
    step.most_in_forward = 3
    limit.loss(batch, step.loss, step.model.zero_grad).backward()
    step.sizes.clear()
    small = Batch(batch.images[..., :32, :32].contiguous(), batch.targets)
    step.most_in_forward = 100
    limit.loss(small, step.loss, step.model.zero_grad)
    assert step.sizes == [6]


def test_a_single_image_that_does_not_fit_is_a_user_error(batch: Batch) -> None:
    step = Step()
    step.most_in_forward = 0
    with pytest.raises(UserError, match="one image of 64 x 64"):
        SplitOnOOM().loss(batch, step.loss, step.model.zero_grad).backward()
