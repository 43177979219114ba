"""Checks of what a user configures for augmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtdetrv2_train.errors import UserError


def checked_range(name: str, values: Sequence[float], lowest: float, highest: float = np.inf) -> tuple[float, float]:
    """Two ascending numbers within limits.

    Raises:
        UserError: if they are not.
    """
    if len(values) != 2 or not lowest <= values[0] <= values[1] <= highest:
        limits = f"at least {lowest:g}" if highest == np.inf else f"from {lowest:g} to {highest:g}"
        raise UserError(f"augment.transforms.{name} is {list(values)}: give two ascending numbers {limits}")
    return float(values[0]), float(values[1])


def checked_probability(name: str, value: float) -> float:
    """A number from 0 to 1.

    Raises:
        UserError: if it is not.
    """
    if not 0 <= value <= 1:
        raise UserError(f"augment.transforms.{name} is {value}: give a probability from 0 to 1")
    return value
