"""Where an exported model begins to differ: a graph that gives what every part of the model computes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from rtdetrv2_train.export.formats import Job
from rtdetrv2_train.export.graph import DetectorGraph, Recorded
from rtdetrv2_train.inference.export_card import ExportCard, Precision
from rtdetrv2_train.inference.runtimes import open_model
from rtdetrv2_train.model.reparameterisation import ReparameterisedDetector

_LISTS = ("backbone", "encoder", "decoder")
_TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "float16": 0.05, "int8": 0.5}


class ProbeGraph(DetectorGraph):
    """Images ``[B, 3, H, W]`` in [0, 1] to the outputs of the model's parts, in the order of computing."""

    input_names = ("images",)

    def __init__(self, model: ReparameterisedDetector, example_B3HW: Tensor) -> None:
        super().__init__(model)
        self.output_names = tuple(name.replace(".", "_") for name in self._outputs_of_parts(example_B3HW))

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(self._outputs_of_parts(images_B3HW).values())

    def _outputs_of_parts(self, images_B3HW: Tensor) -> dict[str, Any]:
        parts = {name: module for top in _LISTS for name, module in _parts(top, self.model.get_submodule(top))}
        outputs: dict[str, Any] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            return lambda module, inputs, output: outputs.update({name: output})

        hooks = [module.register_forward_hook(keep(name)) for name, module in parts.items()]
        try:
            self.predict(images_B3HW)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def _parts(prefix: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children of a part; of a list, each of its modules."""
    found = []
    for name, child in module.named_children():
        path = f"{prefix}.{name}"
        if isinstance(child, nn.ModuleList):
            found += [(f"{path}.{index}", item) for index, item in enumerate(child)]
        else:
            found.append((path, child))
    return found


def first_difference(job: Job, card: ExportCard, write: Callable[[Job], None]) -> str:
    """Export the outputs of all parts of a model, and say which differs first from PyTorch's.

    Args:
        job: by which the model was exported.
        card: of the exported model.
        write: the format's writer.

    Returns:
        half a sentence for the user.
    """
    module = ProbeGraph(job.recorded.module.model, job.recorded.example[0]).eval()
    recorded = Recorded(module, job.recorded.example[:1], job.recorded.shape, job.recorded.precision)
    with tempfile.TemporaryDirectory(prefix="rtdetrv2-") as folder:
        path = Path(folder, job.path.name)
        try:
            write(replace(job, recorded=recorded, path=path, letterbox=None))
            probed = replace(card, graph="raw", input_names=module.input_names, output_names=module.output_names)
            found = open_model(path, probed)(recorded.example[0].numpy())
        except Exception as error:  # whatever the format's packages raise: the finding itself must reach the user
            return f"looking at single layers failed ({str(error).splitlines()[0]})"
    expected = module(recorded.example[0])
    for name, one, other in zip(module.output_names, expected, found, strict=True):
        scale = max(float(one.abs().max()), 1e-6)
        if one.shape != other.shape or np.abs(one.numpy() - other).max() / scale > _TOLERANCES[card.precision]:
            return f"the first layer that differs is {name}"
    return "no layer differs when each is looked at on a made-up image, so the choice of queries or sampling does"
