"""Inference as a CUDA graph detects what it detects without one."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu.capture import Captured
from benchmarks.gpu.inference import PRECISIONS, Inference, largest_difference


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_a_graph_detects_the_same_also_in_other_images(precision: str) -> None:
    inference = Inference("cuda", "nano", batch=2, precision=precision, size=128)
    graph = Captured(inference.detect)
    for _ in range(2):
        expected = inference.detect()
        assert float(expected.scores.std()) > 0
        assert largest_difference(expected, graph()) == 0
        inference.images.copy_(torch.randint_like(inference.images, 256))
