"""A recorded graph whose weights lie in memory as their shapes say."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.export import ExportedProgram

from rtdetrv2_train.export.graph import Recorded


def in_standard_layout(recorded: Recorded) -> nn.Module:
    """A copy of a recorded graph with contiguous weights.

    The kernels of a fused model are channels last, which PyTorch is faster with. ExecuTorch 1.5 refuses that, and
    litert-torch 0.10 takes one kernel for another.

    Args:
        recorded: the graph, which stays as it is.

    Returns:
        what maps the inputs to the outputs as the graph does.
    """
    module = copy.deepcopy(recorded.program.module())
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return module


def program_in_standard_layout(recorded: Recorded) -> ExportedProgram:
    """As :func:`in_standard_layout`, recorded again."""
    with torch.no_grad():
        return torch.export.export(
            in_standard_layout(recorded), recorded.example, dynamic_shapes=recorded.dynamic_shapes
        )
