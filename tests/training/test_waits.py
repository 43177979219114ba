from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rtdetrv2_train.api import build_criterion
from rtdetrv2_train.loss import matcher
from rtdetrv2_train.types import Targets
from tests.support import made, small_model


class DevicesMix(TorchDispatchMode):
    """Lists the operations in which a tensor of the host meets one of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {value.device for value in (*args, result) if isinstance(value, Tensor)}
        if len(devices) > 1:
            self.found.append(func.overloadpacket.__name__)
        return result


@pytest.mark.parametrize("max_slots", [None, 4])
@pytest.mark.parametrize("counts", [(3, 0, 9), (0, 0, 0)])
def test_a_step_of_another_number_of_boxes_makes_the_device_wait_for_nothing(
    counts: tuple[int, ...], max_slots: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `meta` device stands in for a GPU: a tensor of it cannot be read by the host, which raises."""
    monkeypatch.setattr(matcher, "solves_on", lambda device_type: True)
    model = small_model().train().to("meta")
    model.decoder.max_denoising_boxes = max_slots
    criterion = build_criterion("nano")
    images = torch.empty(3, 3, 64, 64, dtype=torch.uint8, device="meta")

    def step(counts: tuple[int, ...]) -> list[str]:
        targets = Targets.from_list(made.targets(list(counts), num_classes=3)).to("meta")
        with DevicesMix() as mixed:
            loss = torch.stack(tuple(criterion(model(images, targets), targets).values())).sum()
            loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            nn.utils.clip_grads_with_norm_(model.parameters(), 0.1, nn.utils.get_total_norm(gradients))
        return mixed.found

    step((1, 2, 1))  # position embeddings and anchors of a size are copied to the device once
    assert step(counts) == []
