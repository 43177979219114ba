"""Writing MNN files."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.inference.export_card import Precision


def write_mnn(onnx_file: Path, path: Path, precision: Precision) -> None:
    """Convert an ONNX file to MNN.

    The command ``mnnconvert`` is not used: it installs a package with whatever pip it finds, and reports to its makers.

    Args:
        onnx_file: of float32.
        path: of the ``.mnn`` file.
        precision: of the weights; MNN computes in what the device is fastest with.

    Raises:
        UserError: if MNN cannot convert the graph.
    """
    tools = importlib.import_module("_tools")  # the extension behind MNN.tools.mnnconvert
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        converted = Path(folder, "model.mnn")
        half = ["--fp16"] if precision == "float16" else []
        names = ["--modelFile", str(onnx_file), "--MNNModel", str(converted), "--bizCode", "rtdetrv2"]
        tools.mnnconvert(["mnnconvert", "-f", "ONNX", *names, *half])
        if not converted.exists():
            raise UserError("MNN cannot convert this model: it says why above")
        atomic_save(path, lambda temporary: temporary.write_bytes(converted.read_bytes()))
