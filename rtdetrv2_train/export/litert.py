"""Writing LiteRT files."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.layout import in_standard_layout
from rtdetrv2_train.files import atomic_save


def write_litert(recorded: Recorded, path: Path) -> None:
    """Write a LiteRT file, whose weights and computations are float32.

    Args:
        recorded: a graph of a fixed shape.
        path: of the ``.tflite`` file.
    """
    import litert_torch
    from litert_torch import progress

    with contextlib.redirect_stdout(io.StringIO()):
        progress.console.file = io.StringIO()  # two lines a pass
        model = litert_torch.convert(in_standard_layout(recorded), recorded.example)
    atomic_save(path, lambda temporary: temporary.write_bytes(model.model_content()))
