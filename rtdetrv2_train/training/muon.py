"""Muon for the matrices inside a network, AdamW for everything else.

Muon (Jordan et al., 2024; https://kellerjordan.github.io/posts/muon) takes the momentum of a weight matrix, replaces
its singular values by numbers near 1, and steps that way. Its steps have the size of AdamW's, as in Moonlight (Liu et
al., arXiv 2502.16982, 2.2), so that both take the learning rate of their parameter group. Here the kernel of a
convolution is a matrix, too: a row for each output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

ParameterGroup = dict[str, Any]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al.
_ITERATIONS = 3  # the others take 5, of which the last two gain nothing here (docs/recipes.md)
_RMS_OF_ADAMW = 0.2  # of an update, Moonlight
_SMALLEST_SIDE = 8
_OUTPUTS_AND_TABLES = ("score_head", "class_embed")  # each row belongs to a class


def is_inner_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is trained by Muon: a matrix or a kernel, but none of a class, an image's channels or a box.

    Args:
        name: of the parameter in its model.
        parameter: the parameter. A kernel of a depthwise convolution is no matrix, either.
    """
    if parameter.ndim not in (2, 4) or any(part in name for part in _OUTPUTS_AND_TABLES):
        return False
    return min(parameter.shape[:2]) >= _SMALLEST_SIDE


def split_groups(groups: Iterable[ParameterGroup]) -> list[ParameterGroup]:
    """The same parameter groups, but with the matrices that Muon trains in groups of their own.

    Args:
        groups: from ``parameter_groups``, with ``name`` and ``parameter_names``.

    Returns:
        groups with ``muon`` besides, whether it trains them.
    """
    split = []
    for group in groups:
        named = list(zip(group["parameter_names"], group["params"], strict=True))
        for muon in (True, False):
            own = [(name, parameter) for name, parameter in named if is_inner_matrix(name, parameter) == muon]
            if own:
                names, parameters = (list(column) for column in zip(*own, strict=True))
                label = f"{group['name']} (Muon)" if muon else group["name"]
                split.append({**group, "name": label, "params": parameters, "parameter_names": names, "muon": muon})
    return split


class Muon(torch.optim.AdamW):
    """Muon for the groups that say ``muon``, AdamW for the others.

    Like the fused AdamW it leaves a step out whose ``found_inf`` is not 0, and divides by ``grad_scale``, the loss
    scale of float16 AMP, both without a device-to-host read.

    Args:
        groups: parameter groups of :func:`split_groups`.
        learning_rate: of groups without one.
        betas: of AdamW.
        momentum: of Muon, with Nesterov's correction.
        factor: the size of Muon's steps as a multiple of AdamW's at the same learning rate.
    """

    def __init__(
        self,
        groups: Iterable[ParameterGroup],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        factor: float = 1.0,
    ) -> None:
        super().__init__(groups, lr=learning_rate, betas=betas, fused=True)
        self._momentum = momentum
        self._factor = factor

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_matrices(self, group: ParameterGroup) -> None:
        alike: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike.setdefault(parameter.shape, []).append(parameter)
        for parameters in alike.values():
            self._step_alike(parameters, group["lr"], group["weight_decay"])

    def _step_alike(self, parameters: list[Tensor], learning_rate: float, weight_decay: float) -> None:
        """Parameters of one shape, as one batch of K matrices ``[K, rows, columns]``."""
        for parameter in parameters:
            if not self.state[parameter]:
                step = torch.zeros((), device=parameter.device)
                self.state[parameter] = {"step": step, "exp_avg": torch.zeros_like(parameter)}
        matrices = [_as_matrix(p, p) for p in parameters]
        kept = [_as_matrix(self.state[p]["exp_avg"], p) for p in parameters]
        momentum = torch.stack(kept)
        gradient = torch.stack([_as_matrix(p.grad, p) for p in parameters if p.grad is not None])
        if (scale := getattr(self, "grad_scale", None)) is not None:
            gradient = gradient / scale
        taken = torch.ones((), device=gradient.device)
        if (found_inf := getattr(self, "found_inf", None)) is not None:
            taken = taken - found_inf.clamp(max=1.0)
            gradient = torch.where(taken > 0, gradient, momentum)
        momentum.lerp_(gradient, 1 - self._momentum)
        update = orthogonal(gradient.lerp_(momentum, self._momentum))
        size = self._factor * _RMS_OF_ADAMW * max(update.shape[1:]) ** 0.5
        update.mul_(learning_rate * size * taken)
        torch._foreach_add_([self.state[p]["step"] for p in parameters], [taken] * len(parameters))
        torch._foreach_copy_(kept, list(momentum.unbind()))
        torch._foreach_mul_(matrices, 1 - learning_rate * weight_decay * taken)
        torch._foreach_sub_(matrices, list(update.unbind()))


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors, and singular values near 1 but for the smallest, which grow 40-fold.

    Steps of a quintic Newton-Schulz iteration. Where one side is much the longer, it runs on the products of the rows
    of the shorter side, which takes less than half of the operations.

    Args:
        matrices: ``[K, rows, columns]``.

    Returns:
        the same shape.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = _COEFFICIENTS
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    if matrices.shape[2] < 2 * matrices.shape[1]:
        for _ in range(_ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram = x @ x.mT
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    turn: Tensor | None = None
    for iteration in range(_ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c).add_(identity, alpha=a)
        turn = factor if turn is None else factor @ turn
        if iteration + 1 < _ITERATIONS:
            gram = factor @ gram @ factor
    assert turn is not None
    return turn @ x


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """As ``[rows, columns]``, the columns in the order in which ``like``, of the same shape, lies in memory.

    For a tensor that lies as ``like`` does, it is a view.
    """
    if like.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)  # channels last
    return tensor.flatten(1)
