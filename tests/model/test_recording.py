"""The model's graph can be recorded for any batch and size, which leaves the model as it was."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.export import Dim

from rtdetrv2_train import RTDETRv2, build_model, fuse
from tests.support import made

SIZES = ((1, 64, 64), (2, 96, 160), (3, 160, 96))


class Raw(nn.Module):
    def __init__(self, model: RTDETRv2) -> None:
        super().__init__()
        self.model = model

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model.decoder(self.model.encoder(self.model.backbone(images_B3HW)))
        return output.logits, output.boxes


def model_of(sampling: str = "default") -> RTDETRv2:
    torch.manual_seed(0)
    model = build_model("nano", 3, (64, 64), sampling=sampling, num_queries=20).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # so that scores differ and queries do not swap
    return model


def answers(model: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        outputs = [model(made.image("image", *size)) for size in SIZES]
    return [tensor for output in outputs for tensor in (output.logits, output.boxes)]


@pytest.mark.parametrize("sampling", ["default", "discrete"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_recorded_graph_takes_other_batches_and_sizes(sampling: str, fused: bool) -> None:
    model = model_of(sampling)
    model = fuse(model) if fused else model
    batch, height, width = Dim("batch", max=64), Dim("height", max=64), Dim("width", max=64)
    shapes = ({0: batch, 2: 32 * height, 3: 32 * width},)
    program = torch.export.export(Raw(model), (torch.rand(2, 3, 96, 128),), dynamic_shapes=shapes).module()
    for size in SIZES:
        image = made.image("image", *size)
        with torch.no_grad():
            expected, found = model(image), program(image)
        torch.testing.assert_close(found[0], expected.logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(found[1], expected.boxes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("by", ["export", "trace"])
def test_recording_a_graph_changes_no_answer(by: str) -> None:
    model = model_of()
    untouched = answers(copy.deepcopy(model))
    images = torch.rand(2, 3, 96, 160)  # a size that is asked for afterwards
    if by == "export":
        torch.export.export(Raw(model), (images,))
    else:
        with torch.no_grad():
            torch.jit.trace(Raw(model), (images,), check_trace=False)
    assert all(map(torch.equal, answers(model), untouched))


def test_a_model_compiled_as_a_whole_is_not_compiled_anew_for_every_size() -> None:
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model_of(), backend="eager")
    answers(cast(nn.Module, compiled))
    with torch.no_grad():
        for side in (96, 128, 192, 224, 256):
            compiled(made.image("image", 2, side, 64))
    assert counters["stats"]["unique_graphs"] <= 4
    torch._dynamo.reset()


def test_a_baked_model_has_no_position_left_to_compute() -> None:
    fused = fuse(model_of())
    expected = fused(made.image("image", 1, 96, 64))
    fused.bake(96, 64)
    program = torch.export.export(Raw(fused), (torch.rand(1, 3, 96, 64),))
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in operations if any(part in name for part in ("arange", "sin.", "cos.", "meshgrid"))]
    found = program.module()(made.image("image", 1, 96, 64))
    torch.testing.assert_close(found[1], expected.boxes, rtol=0, atol=1e-5)
