"""The largest batch size per device that fits is found by trying until no OOM."""

from __future__ import annotations

import pytest
import torch

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.find_batch_size import largest_that_fits


def test_the_largest_divisor_that_fits_is_taken() -> None:
    tried: list[int] = []
    freed: list[int] = []

    def step(images: int) -> None:
        tried.append(images)
        if images > 5:
            raise torch.OutOfMemoryError

    assert largest_that_fits(step, 12, lambda: freed.append(1)) == 4
    assert tried == [12, 6, 4]
    assert len(freed) == 3


def test_a_device_too_small_for_one_image_is_a_user_error() -> None:
    def step(images: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match=r"out of memory \(OOM\) with one image"):
        largest_that_fits(step, 4, lambda: None)
