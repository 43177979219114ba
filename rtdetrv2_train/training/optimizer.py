"""The optimizer: learning rate and weight decay of each parameter, and the memory layout of its state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from rtdetrv2_train.errors import UserError

ParameterGroup = dict[str, Any]


def parameter_groups(
    model: nn.Module, rules: Mapping[str, Mapping[str, Any] | None], learning_rate: float, weight_decay: float
) -> list[ParameterGroup]:
    """Parameter groups from named rules.

    Args:
        model: model whose trainable parameters are grouped by equal settings.
        rules: for each name a regular expression ``match``, searched in the parameter's name, and the
            ``learning_rate``, ``weight_decay`` or both of matching parameters. Later rules override earlier ones. None
            in place of a rule takes it away.
        learning_rate: learning rate of parameters without such a rule.
        weight_decay: weight decay of parameters without such a rule.

    Returns:
        groups for a torch optimizer: ``params``, ``lr``, ``weight_decay``, and also ``name`` and ``parameter_names``.

    Raises:
        UserError: if a pattern is not a regular expression, or a rule has an unknown key.
    """
    compiled = []
    for rule_name, rule in rules.items():
        if rule is None:
            continue
        unknown = set(rule) - {"match", "learning_rate", "weight_decay"}
        if unknown or "match" not in rule:
            problem = f"has no '{unknown.pop()}'" if unknown else "lacks 'match'"
            raise UserError(f"model.parameter_rules.{rule_name} {problem}: use match, learning_rate, weight_decay")
        try:
            compiled.append((rule_name, re.compile(rule["match"]), rule))
        except re.error as error:
            raise UserError(f"model.parameter_rules.{rule_name}.match is not a regular expression: {error}") from error

    groups: dict[tuple[float, float], ParameterGroup] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        settings = {"learning_rate": learning_rate, "weight_decay": weight_decay}
        matched = [(rule_name, rule) for rule_name, pattern, rule in compiled if pattern.search(name)]
        for _, rule in matched:
            settings |= {key: float(value) for key, value in rule.items() if key != "match"}
        key = (settings["learning_rate"], settings["weight_decay"])
        group = groups.setdefault(
            key,
            {"name": "", "params": [], "parameter_names": [], "lr": key[0], "weight_decay": key[1]},
        )
        label = " ".join(rule_name for rule_name, _ in matched) or "default"
        if label not in group["name"].split(", "):
            group["name"] = f"{group['name']}, {label}".strip(", ")
        group["params"].append(parameter)
        group["parameter_names"].append(name)
    return list(groups.values())


def group_table(groups: list[ParameterGroup], factor: float, num_frozen: int) -> Table:
    """A table of all parameter groups with number of parameters, learning rate and weight decay.

    Args:
        groups: from :func:`parameter_groups`.
        factor: factor of the learning rates.
        num_frozen: number of frozen parameters (scalars).
    """
    table = Table(title="Parameter groups", title_justify="left")
    table.add_column("group")
    for column in ("tensors", "parameters", "learning rate", "weight decay"):
        table.add_column(column, justify="right")
    for group in groups:
        count = sum(parameter.numel() for parameter in group["params"])
        table.add_row(
            Text(group["name"]),
            f"{len(group['params'])}",
            f"{count:,}",
            f"{group['lr'] * factor:.3g}",
            f"{group['weight_decay']:.3g}",
        )
    if num_frozen:
        table.add_row("frozen", "", f"{num_frozen:,}", "not trained", "")
    return table


def lay_out_state(optimizer: torch.optim.Optimizer) -> None:
    """Give optimizer state the memory layout (channels last) of its parameter, which fused kernels rely on."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
