"""Gradient checkpointing and recomputed activations change memory, not numbers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.gradient_checkpointing import Block, enable_gradient_checkpointing
from rtdetrv2_train.model.layers import ConvNorm
from rtdetrv2_train.ops import conv_norm_act
from rtdetrv2_train.types import Targets
from tests.support import build, chosen, composed, made


def model_in_float64(name: str) -> nn.Module:
    config = composed("model=nano" if name == "nano" else chosen(name))
    return build(config, num_denoising=0).double().train()


def losses_and_gradients(model: nn.Module) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Of a copy of the model, and its buffers afterwards."""
    model = copy.deepcopy(model)
    targets = Targets.from_list(made.targets([2, 3]))
    targets = replace(targets, boxes=targets.boxes.double())
    output = model(made.image("images", 2, 64, 64).double(), targets)
    loss = torch.stack(tuple(Criterion()(output, targets).values())).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), gradients, dict(model.named_buffers())


def kept_by(module: nn.Module, x: Tensor) -> int:
    """Number of elements that autograd keeps for the backward pass, without parameters; each storage counts once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not any(tensor is parameter for parameter in module.parameters()):
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    return sum(kept.values())


@pytest.mark.parametrize("name", ["nano", "r18vd"])
def test_recomputed_batchnorm_and_activation_give_the_same_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_in_float64(name)
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 2**60)
    expected = losses_and_gradients(model)
    recomputed: list[Any] = []
    activated = conv_norm_act._RecomputeSource.activated
    monkeypatch.setattr(
        conv_norm_act._RecomputeSource, "activated", lambda self: recomputed.append(self) or activated(self)
    )
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 0)
    torch.testing.assert_close(losses_and_gradients(model), expected, rtol=1e-12, atol=1e-12)
    assert len(recomputed) > 20


def test_a_convolution_keeps_no_input_that_can_be_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Sequential(ConvNorm(3, 8, 3, activation="silu"), ConvNorm(8, 8, 3, activation="relu"))
    x = torch.rand(2, 3, 16, 16)
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 2**60)
    plain = kept_by(layers, x)
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 0)
    of_one_map = 2 * 8 * 16 * 16
    # each layer keeps the convolution's output, which the hook does not see, instead of three and two tensors
    assert plain - (kept_by(layers, x) + 2 * of_one_map) >= 2 * of_one_map


def test_a_second_backward_pass_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_norm_act, "RECOMPUTE_ABOVE", 0)
    total = ConvNorm(3, 4, 1, activation="relu")(torch.rand(2, 3, 4, 4)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="do without retain_graph=True"):
        total.backward()


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("r50vd", "hgnetv2_l")]


@pytest.mark.parametrize("name", ["nano", *LARGE])
def test_gradient_checkpointing_gives_the_same_gradients_and_batchnorm_statistics(name: str) -> None:
    model = model_in_float64(name)
    expected = losses_and_gradients(model)
    enable_gradient_checkpointing(model)
    runs: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda block, _: runs.append(block))
    torch.testing.assert_close(losses_and_gradients(model), expected, rtol=1e-12, atol=1e-12)
    blocks = set(runs)
    trained = {block for block in blocks if any(p.requires_grad for p in block.parameters())}
    assert len(runs) == len(blocks) + len(trained)
    model.eval()
    with torch.no_grad():
        model(made.image("images", 1, 64, 64).double())
    assert len(runs) == 2 * len(blocks) + len(trained)
