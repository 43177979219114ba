"""Software that runs exported models, one file each: opens a file as a function of NumPy's arrays."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.inference.export_card import ExportCard

Session = Callable[..., list[NDArray[Any]]]
"""Takes inputs in the order of the card, gives outputs in their order."""


class Runtime(NamedTuple):
    """What opens the files of a format.

    Attributes:
        title: as its makers call it.
        suffix: of its files.
        packages: that must be importable.
        extra: of this project, which installs them; empty where there is nothing to install.
        system: the one that it runs on, as Python's ``platform.system`` calls it; empty: any.
    """

    title: str
    suffix: str
    packages: tuple[str, ...]
    extra: str
    system: str = ""

    @property
    def runs_here(self) -> bool:
        """Whether it does on this system, if it is installed."""
        return self.system in ("", platform.system())


RUNTIMES = {
    "onnx": Runtime("ONNX Runtime", ".onnx", ("onnxruntime",), "onnx"),
    "openvino": Runtime("OpenVINO", ".xml", ("openvino",), "openvino"),
    "pt2": Runtime("PyTorch", ".pt2", ("torch",), ""),
    "aoti": Runtime("AOTInductor", ".pt2", ("torch",), ""),
    "tensorrt": Runtime("TensorRT", ".engine", ("tensorrt",), "tensorrt"),
    "litert": Runtime("LiteRT", ".tflite", ("ai_edge_litert",), "litert"),
    "executorch": Runtime("ExecuTorch", ".pte", ("executorch",), "executorch"),
    "coreml": Runtime("Core ML", ".mlpackage", ("coremltools",), "coreml", "Darwin"),
    "mnn": Runtime("MNN", ".mnn", ("MNN",), "mnn"),
}
"""By format. ``open_<format>`` in the file of that name opens it."""

_SYSTEMS = {"Darwin": "macOS"}
SUFFIXES = frozenset(runtime.suffix for runtime in RUNTIMES.values())


def open_model(path: Path, card: ExportCard) -> Session:
    """Open an exported model in its runtime.

    Args:
        path: its file or folder.
        card: what lies beside it.

    Raises:
        UserError: if the runtime is not installed, or cannot open the file.
    """
    if (runtime := RUNTIMES.get(card.format)) is None:
        raise UserError(f"the card of '{path}' names the format '{card.format}': there are {', '.join(RUNTIMES)}")
    if not runtime.runs_here:
        raise UserError(f"{runtime.title} runs on {_SYSTEMS[runtime.system]} alone: open '{path}' there")
    require(runtime.packages, f"opening '{path}' with {runtime.title}", runtime.extra)
    module = importlib.import_module(f"{__name__}.{card.format}")
    session: Session = getattr(module, f"open_{card.format}")(path, card)
    return session


def require(packages: Sequence[str], purpose: str, extra: str) -> None:
    """Check that packages can be imported.

    Args:
        packages: names of modules.
        purpose: what needs them, for the message.
        extra: of this project, which installs them.

    Raises:
        UserError: if one is missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f'{purpose} needs {missing[0]}: pip install "rtdetrv2-train[{extra}]"')
