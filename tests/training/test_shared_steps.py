"""Training gives the same result for any world size and gradient accumulation, with real DDP processes."""

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

pytestmark = pytest.mark.slow

FROZEN = [(2, 2), (1, 1)]  # world size and gradient accumulation; the last one is what the others are compared with
SYNCHRONISED = [(2, 1), (4, 1), (1, 1)]
EMPTY = [(2, 1), (1, 1)]


def with_many_boxes(folder: Path, num_images: int, size: int) -> None:
    """A dataset whose images have 0 to 7 boxes."""
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


def runs_of(
    folder: Path, data: Path, splits: list[tuple[int, int]], *overrides: str, **changes: Any
) -> list[dict[str, Any]]:
    """What the program beside this file is to run, one run for each split."""
    of_run = ["model.pretrained=null", "recipe.total_batch_size=8", "data.num_workers=0", f"data.root={data}"]
    for part in ("train", "val"):
        of_run += [f"data.{part}.images=images", f"data.{part}.annotations=annotations.json"]
    common = {"frozen": splits == FROZEN, "steps": 10, "overrides": [*of_run, *overrides], **changes}
    return [
        {"folder": str(folder / f"{processes}x{accumulated}"), "processes": processes, "accumulated": accumulated}
        | common
        for processes, accumulated in splits
    ]


def run_all(runs: list[dict[str, Any]]) -> None:
    """All runs, in one fresh process: starting it takes as long as several of them."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.shared_steps", json.dumps(runs)],
        cwd=ROOT,
        env={**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]


def largest_differences(folder: Path, splits: list[tuple[int, int]]) -> dict[str, float]:
    """Differences of losses, first gradient, weights and EMA from a world size of 1 without gradient accumulation.

    Relative to the loss, and to the norm of a tensor or, where that is tiny, of the median tensor.
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every run of this file has left what it recorded."""
    folder = tmp_path_factory.mktemp("shared_steps")
    nano = ["model=nano", "model.image_size=[64,64]"]
    # Strong augmentation, sizes that change, images without boxes, denoising.
    with_many_boxes(folder / "many", num_images=45, size=64)
    strong = [*nano, "model.multiscale=[480,640,800]"]
    runs = runs_of(folder / "frozen", folder / "many", FROZEN, *strong)
    runs += runs_of(folder / "synchronised", folder / "many", SYNCHRONISED, *strong)

    write_coco(folder / "few", num_images=32, size=64)
    order = EpochSampler(32, seed=0).order().reshape(-1, 8)  # steps of two batches of 4, one per rank
    content = json.loads((folder / "few" / "annotations.json").read_text())
    content["annotations"] = [content["annotations"][index] for index in order[:, :4].flatten()]
    (folder / "few" / "annotations.json").write_text(json.dumps(content))
    runs += runs_of(folder / "empty", folder / "few", EMPTY, *nano, "augment=light", steps=4)
    run_all(runs)
    return folder


@pytest.mark.parametrize(("kind", "splits"), [("frozen", FROZEN), ("synchronised", SYNCHRONISED)])
def test_ten_steps_are_the_same_for_any_world_size_and_gradient_accumulation(
    folder: Path, kind: str, splits: list[tuple[int, int]]
) -> None:
    assert max(largest_differences(folder / kind, splits).values()) < 1e-8


def test_a_rank_without_boxes_for_a_whole_epoch_gives_the_gradients_of_a_single_rank(folder: Path) -> None:
    runs = folder / "empty"
    assert json.loads((runs / "2x1" / "counts1.json").read_text()) == [[0] * 4] * 4
    assert json.loads((runs / "2x1" / "counts0.json").read_text()) == [[1] * 4] * 4
    assert max(largest_differences(runs, EMPTY).values()) < 1e-8


if __name__ == "__main__":  # python -m tests.training.test_shared_steps model=r18vd model.image_size=[128,128]
    with tempfile.TemporaryDirectory() as scratch:
        with_many_boxes(Path(scratch) / "set", num_images=45, size=128)
        for number, which in enumerate((FROZEN, SYNCHRONISED)):
            out = Path(scratch) / str(number)
            run_all(runs_of(out, Path(scratch) / "set", which, *sys.argv[1:]))
            found = {kind: f"{value:.1e}" for kind, value in largest_differences(out, which).items()}
            sys.stdout.write(f"{which} {found}\n")
