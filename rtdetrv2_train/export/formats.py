"""The formats that a detector can be written in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rtdetrv2_train.export.huggingface import export_huggingface
from rtdetrv2_train.export.reference import export_reference
from rtdetrv2_train.inference.detector import Detector

FORMATS: dict[str, Callable[[Detector, Path], dict[str, object]]] = {
    "huggingface": export_huggingface,
    "reference": export_reference,
}
"""By name: writes a detector to a path, and gives what to tell the user, the path first."""
