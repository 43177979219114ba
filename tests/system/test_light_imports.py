"""Lightning comes without torchmetrics' metrics, which come as soon as somebody asks for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

PROGRAM = """
import sys

import pytest
from rtdetrv2_train.system.light_imports import import_torchmetrics_lightly
import_torchmetrics_lightly()
import lightning.pytorch as pl, torchmetrics
heavy = {"torchvision", "transformers", "scipy.signal", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
assert pl.core.module.Metric is torchmetrics.Metric
import torch
accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
assert isinstance(accuracy, torchmetrics.Metric)
assert accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])).item() == 0.75
accuracy.plot()
assert "matplotlib" in sys.modules
print("as usual")
"""


@pytest.mark.slow
def test_the_rest_of_torchmetrics_is_there_when_it_is_asked_for() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout == "as usual\n", result.stderr[-2000:]
