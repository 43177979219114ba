"""RT-DETRv2: build, load, train on and predict with its models.

What is offered here is imported at first use, so that ``train.py --help`` need not wait for PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtdetrv2_train.api import (
        Criterion,
        Detector,
        LoadReport,
        ModelOutput,
        Prediction,
        RTDETRv2,
        Targets,
        UserError,
        build_criterion,
        build_model,
        fuse,
        load_detector,
        load_weights,
        predict,
    )

__all__ = [
    "Criterion",
    "Detector",
    "LoadReport",
    "ModelOutput",
    "Prediction",
    "RTDETRv2",
    "Targets",
    "UserError",
    "build_criterion",
    "build_model",
    "fuse",
    "load_detector",
    "load_weights",
    "predict",
    "predict_source",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("rtdetrv2_train.api"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
