"""Faster import of Lightning: without the metrics of torchmetrics, which take more than half of a run's start-up.

Lightning needs two classes of torchmetrics. Importing torchmetrics loads all of its metrics, and with them torchvision,
transformers if it is installed, and scipy.signal (torchmetrics 1.9). Here the package is imported without running its
``__init__``. That runs as soon as anything else of the package is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGE, _PLOTS = "torchmetrics", "torchmetrics.utilities.plot"
_NEEDED = {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"}


def import_torchmetrics_lightly() -> None:
    """Import ``torchmetrics.Metric`` and ``MetricCollection`` without the metrics, unless that is done already.

    A release of torchmetrics that does not allow this is imported as usual.
    """
    if _PACKAGE in sys.modules or (spec := importlib.util.find_spec(_PACKAGE)) is None:
        return
    package = _Deferred(_PACKAGE)
    package.__spec__, package.__path__ = spec, spec.submodule_search_locations  # type: ignore[assignment]
    package.__file__ = spec.origin
    vars(package)["_logger"] = logging.getLogger(_PACKAGE)  # its submodules take it from here
    sys.modules[_PACKAGE] = package
    try:
        with _without_matplotlib():
            importlib.import_module(f"{_PACKAGE}.utilities")
            for name, module in _NEEDED.items():
                setattr(package, name, getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
        importlib.import_module(_PACKAGE)


@contextmanager
def _without_matplotlib() -> Iterator[None]:
    """Have torchmetrics find no matplotlib, which it would import for plots that Lightning never draws."""
    from lightning_utilities.core.imports import RequirementCache

    check = RequirementCache.__bool__
    RequirementCache.__bool__ = lambda self: "matplotlib" not in str(self.requirement) and check(self)  # type: ignore[method-assign]
    try:
        yield
    finally:
        RequirementCache.__bool__ = check  # type: ignore[method-assign]


class _Deferred(ModuleType):
    """A package whose ``__init__`` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(self)
        importlib.reload(sys.modules[_PLOTS])  # now with matplotlib
        return getattr(self, name)
