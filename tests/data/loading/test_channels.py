"""Batches of other channels than red, green and blue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import SampleError, UserError


def write_set(folder: Path, channels: int, kind: type = np.uint8, count: int = 6) -> Path:
    """Arrays whose channel c has the value 10 c + 5, or of 12 bits 16 times as much."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        values = np.broadcast_to(np.arange(channels) * 10 + 5, (40, 60, channels)) * (1 if kind is np.uint8 else 16)
        np.save(folder / "images" / f"{number}.npy", values.astype(kind))
        images.append({"id": number, "file_name": f"{number}.npy", "height": 40, "width": 60})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 20, 20]})
        annotations[-1] |= {"area": 400, "iscrowd": 0}
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "set.json").write_text(json.dumps(content))
    return folder


def build(root: Path, channels: int, **changes: Any) -> CocoDataModule:
    paths = {"images": "images", "annotations": "set.json"}
    arguments: dict[str, Any] = {
        "image_size": [64, 64], "transforms": {}, "schedule": {}, "reference_epochs": 1, "max_epochs": 1,
        "batch_size": 3, "eval_batch_size": 2, "num_workers": 0, **changes,
    }  # fmt: skip
    return CocoDataModule(root, paths, paths, channels=channels, **arguments)


@pytest.mark.parametrize("letterbox", [False, True])
@pytest.mark.parametrize("cache", [None, "ram", "disk"])
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_batches_have_all_channels(
    channels: int, cache: Any, letterbox: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_set(tmp_path / "set", channels)
    moves = {"zoom_out": ZoomOut(), "iou_crop": IoUCrop(), "flip": HorizontalFlip()}
    data = build(root, channels, cache=cache, letterbox=letterbox, transforms=moves, multiscale=[480, 640, 800])
    expected = torch.arange(channels) * 10 + 5
    for _ in range(2):  # the second time from the cache
        for batch in data.train_dataloader():
            assert batch.images.shape[1] == channels
            brightest = batch.images.amax((0, 2, 3))
            assert torch.equal(brightest, expected.to(torch.uint8))
    for batch in data.val_dataloader():
        assert batch.images.shape[1:] == (channels, 64, 64)
        assert torch.equal(batch.images[0, :, 0, 0], expected.to(torch.uint8))


def test_the_range_of_deep_bands_is_measured_and_used(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 4, np.uint16)
    data = build(root, 4)
    batch = next(iter(data.val_dataloader()))
    low, high = data.pixel_range or (0, 0)
    assert (low, high) == (5 * 16, 35 * 16)
    assert batch.images[0, :, 5, 5].tolist() == [0, 85, 170, 255]
    assert build(root, 4, pixel_range=[0, 4080]).train_annotations.reading.channels == 4


def test_augmented_bands_reach_the_workers(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 5)
    transforms = {"photometric": PhotometricDistortion(p=1.0), "flip": HorizontalFlip()}
    batches = [list(build(root, 5, num_workers=n, transforms=transforms).train_dataloader()) for n in (0, 2)]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.images.shape[1] == 5


def test_an_image_of_other_bands_is_named_with_the_key(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 4)
    Image.new("RGB", (60, 40)).save(root / "images/3.png")
    (root / "images/3.png").replace(root / "images/3.npy")
    with pytest.raises(SampleError, match=r"the image '.*3\.npy', .* \(it has 3 bands, and data\.channels is 4\)"):
        list(build(root, 4).train_dataloader())
    data = build(root, 4, on_bad_image="skip")
    images = torch.cat([batch.images for batch in data.val_dataloader()])
    assert images.shape[1] == 4
    assert not images[2].any(), "black, so that metrics stay those of the whole set"


def test_a_set_of_other_bands_is_refused_before_training(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", 5)
    with pytest.raises(
        UserError, match=r"its images have 5 bands, such as '1\.npy', and data\.channels is 4: set data\."
    ):
        build(root, 4).load()


@pytest.mark.parametrize("channels", [0, 17, 2.5, "four", True])
def test_channels_are_a_whole_number(channels: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.channels is .*: give a whole number from 1 to 16"):
        build(tmp_path, channels)
