"""RT-DETRv2: build, train, load and measure its models, and predict with them.

What is offered here is listed in ``api.py`` and imported at first use, so that ``rtdetrv2 --help`` need not wait for
PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtdetrv2_train.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("__"):
        api = importlib.import_module("rtdetrv2_train.api")
        if name in ("__all__", *api.__all__):
            return getattr(api, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
