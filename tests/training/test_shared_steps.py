"""The same training whatever the number of processes, with real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import ROOT, write_coco

SPLITS = [(2, 1), (4, 1), (2, 2), (1, 1)]  # processes and accumulated batches; the last one forks no more


def with_many_boxes(folder: Path, num_images: int, size: int) -> None:
    """A set whose images have none to seven boxes."""
    write_coco(folder, num_images, size)
    generator = np.random.default_rng(5)
    content = json.loads((folder / "annotations.json").read_text())
    boxes = []
    for image in range(1, num_images + 1):
        for _ in range((1, 0, 3, 2, 7)[image % 5]):
            width, height = (int(side) for side in generator.integers(size // 8, size // 2, 2))
            left, top = (int(generator.integers(0, size - side)) for side in (width, height))
            about = {"id": len(boxes) + 1, "image_id": image, "category_id": int(generator.choice([3, 7]))}
            boxes.append(about | {"bbox": [left, top, width, height], "area": width * height, "iscrowd": 0})
    (folder / "annotations.json").write_text(json.dumps({**content, "annotations": boxes}))


def run_splits(folder: Path, data: Path, model: str, size: int, **changes: Any) -> None:
    overrides = [f"model={model}", f"model.image_size=[{size},{size}]", "model.pretrained=null", f"data.root={data}"]
    overrides += ["recipe.total_batch_size=8", "data.num_workers=0", "model.multiscale=[480,640,800]"]
    for part in ("train", "val"):
        overrides += [f"data.{part}.images=images", f"data.{part}.annotations=annotations.json"]
    common = {"frozen": True, "steps": 10, "overrides": overrides, **changes}
    runs = [
        {"folder": str(folder / f"{processes}x{accumulated}"), "processes": processes, "accumulated": accumulated}
        for processes, accumulated in SPLITS
    ]
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.shared_steps", json.dumps([run | common for run in runs])],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def assert_alike(folder: Path, relative: float) -> None:
    expected = torch.load(folder / "1x1" / "tensors.pt")
    losses = json.loads((folder / "1x1" / "losses.json").read_text())
    for processes, accumulated in SPLITS[:-1]:
        split = folder / f"{processes}x{accumulated}"
        assert json.loads((split / "losses.json").read_text()) == pytest.approx(losses, rel=relative), split
        found = torch.load(split / "tensors.pt")
        for kind, tensors in expected.items():  # gradient of the first step, weights, averaged weights
            assert found[kind].keys() == tensors.keys()
            for name, tensor in tensors.items():
                if tensor.is_floating_point() and tensor.isfinite().all():
                    difference = (found[kind][name] - tensor).norm().item()
                    assert difference <= relative * tensor.norm().item() + 1e-12, (split, kind, name)


def test_ten_steps_of_nano_are_the_same_on_1_2_and_4_processes_and_with_accumulation(tmp_path: Path) -> None:
    # Strong augmentation, sizes that change, images without boxes, denoising; statistics of batch norms are frozen.
    with_many_boxes(tmp_path / "set", num_images=45, size=64)
    run_splits(tmp_path, tmp_path / "set", "nano", 64)
    assert_alike(tmp_path, 1e-9)
