"""Backbone and encoder compile without a graph break, for any batch size."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from rtdetrv2_train.model.compilation import compile_convolutions
from tests.support import build, chosen, composed, made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nano", "r50vd"])
def test_a_compiled_model_predicts_the_same_for_any_batch_size(name: str) -> None:
    config = composed("model=nano" if name == "nano" else chosen(name))
    model = build(config).eval()
    names = list(model.state_dict())
    batches = [made.image(f"batch {size}", size, 64, 64) for size in (2, 3, 4, 5)]
    with torch.no_grad():
        expected = [model(images).logits for images in batches]
    torch._dynamo.reset()
    counters.clear()
    compile_convolutions(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = [model(images).logits for images in batches]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 4  # backbone and encoder, each with static and with dynamic shapes
    assert list(model.state_dict()) == names
    torch._dynamo.reset()
