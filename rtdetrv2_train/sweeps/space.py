"""What a sweep varies, in Hydra's grammar: ``choice(a, b)``, ``range(1, 5)``, ``tag(log, interval(1e-4, 1e-2))``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rtdetrv2_train.errors import UserError

Space = dict[str, BaseDistribution]


def space_and_rest(arguments: Sequence[str]) -> tuple[Space, list[str]]:
    """Separate the arguments with several values from those with one.

    Args:
        arguments: overrides as on the command line; of two for one key, the later counts.

    Returns:
        What is varied, by key, and the other arguments.
    """
    space: Space = {}
    rest: dict[str, str] = {}
    for argument, override in zip(arguments, OverridesParser.create().parse_overrides(list(arguments)), strict=True):
        key = override.get_key_element()
        space.pop(key, None)
        rest.pop(key, None)
        if override.is_sweep_override():
            space[key] = _distribution(override)
        else:
            rest[key] = argument
    return space, list(rest.values())


def combinations(space: Space) -> Iterator[dict[str, str]]:
    """Every combination of a space of choices.

    Raises:
        UserError: if the space has intervals.
    """
    choices = []
    for key, distribution in space.items():
        if not isinstance(distribution, CategoricalDistribution):
            raise UserError(f"a grid tries every value, and '{key}' is an interval: give it values, {key}=1,2,3")
        choices.append(distribution.choices)
    for values in itertools.product(*choices):
        yield dict(zip(space, map(str, values), strict=True))


def first_value(distribution: BaseDistribution) -> Any:
    """One of the values of a distribution."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else vars(distribution)["low"]


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    low, high, log = value.start, value.end, "log" in value.tags
    if low is None or high is None or not low < high:
        raise UserError(f"'{override.input_line}': an interval goes from a smaller to a larger number")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)
