"""Writing ExecuTorch files, for its CPU library XNNPACK."""

from __future__ import annotations

from pathlib import Path

from rtdetrv2_train.export.graph import Recorded
from rtdetrv2_train.export.layout import program_in_standard_layout
from rtdetrv2_train.files import atomic_save


def write_executorch(recorded: Recorded, path: Path) -> None:
    """Write an ExecuTorch file. What XNNPACK lacks is left to ExecuTorch's portable operators.

    Args:
        recorded: a graph of a fixed shape.
        path: of the ``.pte`` file.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(program_in_standard_layout(recorded), partitioner=[XnnpackPartitioner()])
    program = edge.to_executorch()
    atomic_save(path, lambda temporary: temporary.write_bytes(program.buffer))
