"""What the commands do: one readable function each. Imports nothing heavy before a command is loaded."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType

from rtdetrv2_train.system.light_imports import import_torchmetrics_lightly

_WITH_LIGHTNING = ("train", "evaluate", "inspect_data")


def load_command(module: str) -> ModuleType:
    """Import the module of a command, and with it no more than it needs.

    Args:
        module: its name within this package.
    """
    gc.disable()  # a sixth of the time; what is imported stays, so that there is nothing to collect
    try:
        if module in _WITH_LIGHTNING:
            import_torchmetrics_lightly()
        return importlib.import_module(f"{__name__}.{module}")
    finally:
        gc.enable()
