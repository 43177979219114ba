"""Optimizer state has the memory layout of its parameters, whatever layout it was saved in."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rtdetrv2_train.training.module import lay_out_state


def stepped(layout: torch.memory_format, steps: int) -> tuple[nn.Conv2d, torch.optim.AdamW]:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3).to(memory_format=layout)
    optimizer = torch.optim.AdamW(conv.parameters(), fused=True)
    optimizer.register_load_state_dict_post_hook(lay_out_state)
    step(conv, optimizer, steps)
    return conv, optimizer


def step(conv: nn.Conv2d, optimizer: torch.optim.AdamW, times: int) -> None:
    for _ in range(times):
        optimizer.zero_grad()
        conv(torch.ones(1, 4, 5, 5)).square().sum().backward()
        optimizer.step()


def test_a_state_saved_in_another_layout_resumes_with_the_same_numbers() -> None:
    saved, saved_optimizer = stepped(torch.contiguous_format, 2)
    conv, optimizer = stepped(torch.channels_last, 1)
    conv.load_state_dict(saved.state_dict())
    optimizer.load_state_dict(copy.deepcopy(saved_optimizer.state_dict()))  # which would share its tensors
    assert optimizer.state[conv.weight]["exp_avg"].stride() == conv.weight.stride() != saved.weight.stride()
    step(saved, saved_optimizer, 3)
    step(conv, optimizer, 3)
    torch.testing.assert_close(conv.weight, saved.weight)
