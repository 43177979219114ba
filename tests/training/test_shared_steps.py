"""The same training whatever the number of processes, with real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rtdetrv2_train.data.loading.samplers import EpochSampler
from tests.support import ROOT, write_coco

FROZEN = [(2, 2), (1, 1)]  # processes and accumulated batches; the last one is what the others are compared with
SYNCHRONISED = [(2, 1), (4, 1), (1, 1)]


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


def run_splits(folder: Path, data: Path, splits: list[tuple[int, int]], *overrides: str, **changes: Any) -> None:
    of_run = ["model.pretrained=null", "recipe.total_batch_size=8", "data.num_workers=0", f"data.root={data}"]
    for part in ("train", "val"):
        of_run += [f"data.{part}.images=images", f"data.{part}.annotations=annotations.json"]
    common = {"frozen": splits == FROZEN, "steps": 10, "overrides": [*of_run, *overrides], **changes}
    runs = [
        {"folder": str(folder / f"{processes}x{accumulated}"), "processes": processes, "accumulated": accumulated}
        for processes, accumulated in splits
    ]
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.shared_steps", json.dumps([run | common for run in runs])],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def largest_differences(folder: Path, splits: list[tuple[int, int]]) -> dict[str, float]:
    """Of losses, the first step's gradient, weights and averaged weights to those of one process with one batch.

    Relative to the loss, and to the norm of a tensor or, where that is next to nothing, of the median tensor.
    """
    alone = folder / "1x1"
    expected, losses = torch.load(alone / "tensors.pt"), np.array(json.loads((alone / "losses.json").read_text()))
    largest = {"loss": 0.0} | dict.fromkeys(expected, 0.0)
    for processes, accumulated in splits[:-1]:
        split = folder / f"{processes}x{accumulated}"
        found = torch.load(split / "tensors.pt")
        own = np.array(json.loads((split / "losses.json").read_text()))
        assert len(own) == len(losses)
        largest["loss"] = max(largest["loss"], float(np.abs(own / losses - 1).max()))
        for kind, tensors in expected.items():
            assert found[kind].keys() == tensors.keys()
            compared = [name for name, t in tensors.items() if t.is_floating_point() and t.isfinite().all()]
            norms = {name: tensors[name].norm().item() for name in compared}
            least = float(np.median(list(norms.values()))) * 1e-3
            for name in compared:
                difference = (found[kind][name] - tensors[name]).norm().item() / max(norms[name], least)
                largest[kind] = max(largest[kind], difference)
    return largest


@pytest.mark.parametrize("splits", [FROZEN, SYNCHRONISED], ids=["frozen statistics", "synchronised statistics"])
def test_ten_steps_of_nano_are_the_same_however_the_batch_is_shared_out(
    tmp_path: Path, splits: list[tuple[int, int]]
) -> None:
    # Strong augmentation, sizes that change, images without boxes, denoising.
    with_many_boxes(tmp_path / "set", num_images=45, size=64)
    options = ["model=nano", "model.image_size=[64,64]", "model.multiscale=[480,640,800]"]
    run_splits(tmp_path, tmp_path / "set", splits, *options)
    assert max(largest_differences(tmp_path, splits).values()) < 1e-8


def test_a_process_without_boxes_for_a_whole_epoch_trains_with_the_gradients_of_one_process(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", num_images=32, size=64)
    order = EpochSampler(32, seed=0).order().reshape(-1, 8)  # steps of two batches of 4, one of each process
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"] = [content["annotations"][index] for index in order[:, :4].flatten()]
    (folder / "annotations.json").write_text(json.dumps(content))
    splits = [(2, 1), (1, 1)]
    options = ["model=nano", "model.image_size=[64,64]", "augment=light"]
    run_splits(tmp_path, folder, splits, *options, steps=4)
    assert json.loads((tmp_path / "2x1" / "counts1.json").read_text()) == [[0] * 4] * 4
    assert json.loads((tmp_path / "2x1" / "counts0.json").read_text()) == [[1] * 4] * 4
    assert max(largest_differences(tmp_path, splits).values()) < 1e-8


if __name__ == "__main__":  # python -m tests.training.test_shared_steps model=r18vd model.image_size=[128,128]
    with tempfile.TemporaryDirectory() as scratch:
        with_many_boxes(Path(scratch) / "set", num_images=45, size=128)
        for number, which in enumerate((FROZEN, SYNCHRONISED)):
            out = Path(scratch) / str(number)
            run_splits(out, Path(scratch) / "set", which, *sys.argv[1:])
            found = {kind: f"{value:.1e}" for kind, value in largest_differences(out, which).items()}
            sys.stdout.write(f"{which} {found}\n")
