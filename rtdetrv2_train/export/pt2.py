"""PyTorch's own formats: the recorded program, and the same compiled by AOTInductor."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path

import torch

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.files import atomic_save


def write_pt2(recorded: Recorded, path: Path) -> None:
    """Write a recorded graph as ``torch.export`` saves it."""
    buffer = io.BytesIO()  # torch.export.save warns of the temporary file's name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that are channels last, which are saved as they are
        torch.export.save(recorded.program, buffer)
    atomic_save(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def write_aoti(recorded: Recorded, path: Path) -> None:
    """Compile a recorded graph for this machine's kind of CPU.

    Raises:
        UserError: if PyTorch finds no C++ compiler, or it fails.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        package = Path(folder, "model.pt2")
        try:
            aoti_compile_and_package(recorded.program, package_path=str(package))
        except (CppCompileError, InvalidCxxCompiler) as error:
            reason = next((line for line in str(error).splitlines() if "error" in line.lower()), type(error).__name__)
            raise UserError(
                f"AOTInductor needs a C++ compiler that works ({reason}): install g++ or set CXX"
            ) from error
        atomic_save(path, lambda temporary: temporary.write_bytes(package.read_bytes()))
