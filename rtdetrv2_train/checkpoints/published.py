"""Which published model an architecture is: compared with the configurations in ``conf/model``."""

from __future__ import annotations

from functools import cache

from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.runs.model_configuration import configured_architecture, model_config, model_names

_POINTS = (4, 4, 4)


@cache
def published_architectures() -> dict[str, Architecture]:
    """The architecture of every model whose weights the authors have released, by its name."""
    configs = {name: model_config(name) for name in model_names()}
    return {name: configured_architecture(config) for name, config in configs.items() if config.release}


def published_name(architecture: Architecture) -> str | None:
    """The published model of this family, such as ``r50vd``, however many decoder layers it has; None if unknown."""
    known = published_architectures().items()
    return next((name for name, published in known if published.family == architecture.family), None)


def looks_like(architecture: Architecture) -> str:
    """The name of the published model with this shape, or a description of an unknown one.

    Sampling points other than 4 a level are added to the name, as in ``r18vd with 1, 1, 1 sampling points``.
    """
    name = published_name(architecture)
    if name is None:
        return f"an unknown model with {architecture}"
    points = architecture.decoder.num_points
    return name if points == _POINTS else f"{name} with {', '.join(map(str, points))} sampling points"


def configuration_of(architecture: Architecture) -> str | None:
    """The command-line overrides that choose this model; None for an unknown one."""
    name = published_name(architecture)
    points = architecture.decoder.num_points
    if name is None or points == _POINTS:
        return name and f"model={name}"
    return f"model={name} model.architecture.decoder.num_points=[{','.join(map(str, points))}]"
