"""Writing Core ML packages."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.layout import program_in_standard_layout


def write_coreml(recorded: Recorded, path: Path) -> None:
    """Write a Core ML package for iOS 17, macOS 14 and newer.

    Args:
        recorded: a graph of a fixed shape. With ``float16`` Core ML computes in it, and may use the Neural Engine.
        path: of the ``.mlpackage`` folder.
    """
    import coremltools

    precision = coremltools.precision
    program = program_in_standard_layout(recorded).run_decompositions({})
    model = coremltools.convert(
        program,
        inputs=[
            coremltools.TensorType(name, tuple(tensor.shape))
            for name, tensor in zip(recorded.input_names, recorded.example, strict=True)
        ],
        outputs=[coremltools.TensorType(name) for name in recorded.output_names],
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=precision.FLOAT16 if recorded.precision == "float16" else precision.FLOAT32,
    )
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        package = Path(folder, path.name)
        model.save(str(package))
        if path.exists():
            shutil.rmtree(path)
        package.rename(path)
