from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmarks.counting import OperationCounter
from rtdetrv2_train.training.muon import Muon, is_inner_matrix, orthogonal, split_groups
from rtdetrv2_train.training.optimizer import lay_out_state, parameter_groups
from tests.support import small_model


def expected_orthogonal(matrix: Tensor) -> Tensor:
    """The quintic iteration on singular values, in float64."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / (values.square().sum().sqrt() + 1e-7)
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (24, 16), (16, 144), (144, 16)])
def test_orthogonal_keeps_singular_vectors_and_brings_singular_values_together(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    found = orthogonal(matrices)
    for matrix, turned in zip(matrices, found, strict=True):
        torch.testing.assert_close(turned.double(), expected_orthogonal(matrix), rtol=1e-4, atol=1e-5)
        before, values = torch.linalg.svdvals(matrix), torch.linalg.svdvals(turned)
        assert values.max() < 1.25
        assert values.min() / values.max() > before.min() / before.max()


def test_outputs_tables_and_the_first_convolution_are_left_to_adamw() -> None:
    model = small_model()
    muon = {name for name, parameter in model.named_parameters() if is_inner_matrix(name, parameter)}
    assert "encoder.input_proj.0.conv.weight" in muon
    assert "decoder.decoder.layers.0.linear1.weight" in muon
    rest = {name for name, parameter in model.named_parameters() if parameter.ndim > 1} - muon
    assert {name for name in rest if "score_head" in name or "class_embed" in name}
    assert all(
        "score_head" in name or "class_embed" in name or parameter.shape[0] < 8 or parameter.shape[1] < 8
        for name, parameter in model.named_parameters()
        if name in rest
    )


def test_every_parameter_stays_in_a_group_with_its_learning_rate_and_weight_decay() -> None:
    model = small_model()
    rules = {
        "norms": {"match": "norm|bn", "weight_decay": 0.0},
        "backbone": {"match": "^backbone", "learning_rate": 1e-5},
    }
    groups = parameter_groups(model, rules, 1e-4, 1e-2)
    split = split_groups(groups)
    before = {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["parameter_names"]}
    after = {name: (g["lr"], g["weight_decay"]) for g in split for name in g["parameter_names"]}
    assert before == after
    assert sum(len(group["params"]) for group in split) == len(before)
    names = dict(model.named_parameters())
    for group in split:
        assert all(is_inner_matrix(name, names[name]) == group["muon"] for name in group["parameter_names"])


def made(layout: torch.memory_format = torch.contiguous_format) -> tuple[nn.Module, Muon]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16, 8)).to(
        memory_format=layout
    )
    return model, Muon(split_groups(parameter_groups(model, {}, 0.1, 0.01)), 0.1)


def backward(model: nn.Module) -> None:
    torch.manual_seed(1)
    model.zero_grad()
    model(torch.randn(4, 8, 3, 3)).square().sum().backward()


def test_a_step_is_that_of_the_formula_and_of_adamw() -> None:
    model, optimizer = made()
    reference = copy.deepcopy(model)
    adamw = torch.optim.AdamW([p for p in reference.parameters() if p.ndim == 1], lr=0.1, weight_decay=0.01)
    momentum = [torch.zeros_like(p) for p in reference.parameters()]
    for _ in range(3):
        backward(model)
        backward(reference)
        optimizer.step()
        adamw.step()
        with torch.no_grad():
            for parameter, kept in zip(reference.parameters(), momentum, strict=True):
                if parameter.ndim > 1:
                    assert parameter.grad is not None
                    kept.mul_(0.95).add_(parameter.grad, alpha=0.05)
                    towards = (0.05 * parameter.grad + 0.95 * kept).flatten(1)
                    turned = expected_orthogonal(towards).float() * 0.2 * max(towards.shape) ** 0.5
                    parameter.mul_(1 - 0.1 * 0.01).sub_(0.1 * turned.view_as(parameter))
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_the_memory_layout_of_kernels_and_gradients_changes_nothing() -> None:
    results = []
    for layout, gradient_layout in [
        (torch.contiguous_format, torch.contiguous_format),
        (torch.channels_last, torch.channels_last),
        (torch.channels_last, torch.contiguous_format),
    ]:
        model, optimizer = made(layout)
        for _ in range(2):
            backward(model)
            for parameter in model.parameters():
                if parameter.ndim == 4 and parameter.grad is not None:
                    parameter.grad = parameter.grad.contiguous(memory_format=gradient_layout)
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


def test_a_step_with_a_gradient_of_nan_is_left_out() -> None:
    model, optimizer = made()
    backward(model)
    optimizer.step()
    before = copy.deepcopy((dict(model.named_parameters()), optimizer.state_dict()["state"]))
    backward(model)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(float("nan"))
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    after = dict(model.named_parameters()), optimizer.state_dict()["state"]
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name
    for index, state in before[1].items():
        for name, value in state.items():
            assert torch.equal(value, after[1][index][name]), name


def test_the_loss_scale_of_float16_is_taken_out() -> None:
    plain, plain_optimizer = made()
    scaled, scaled_optimizer = made()
    for _ in range(2):
        backward(plain)
        plain_optimizer.step()
        backward(scaled)
        for parameter in scaled.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(1024.0)
        scaled_optimizer.grad_scale, scaled_optimizer.found_inf = torch.full((), 1024.0), torch.zeros(())
        scaled_optimizer.step()
    for mine, theirs in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_saved_state_goes_on_with_the_same_numbers() -> None:
    model, optimizer = made(torch.channels_last)
    backward(model)
    optimizer.step()
    resumed, resumed_optimizer = made(torch.channels_last)
    resumed_optimizer.register_load_state_dict_post_hook(lay_out_state)
    resumed.load_state_dict(model.state_dict())
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        for net, each in ((model, optimizer), (resumed, resumed_optimizer)):
            backward(net)
            each.step()
    for mine, theirs in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_reads_nothing_from_the_device() -> None:
    model, optimizer = made()
    backward(model)
    optimizer.found_inf, optimizer.grad_scale = torch.zeros(()), torch.ones(())
    optimizer.step()
    with OperationCounter() as counted:
        optimizer.step()
    assert counted.operations > 0
    assert counted.reads == 0
