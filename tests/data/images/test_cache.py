from __future__ import annotations

import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.images import cache as cache_module
from rtdetrv2_train.data.images.cache import ImageCache, cache_file
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import SampleRequest, TrainBatchSampler
from rtdetrv2_train.errors import UserError

ALWAYS = AugmentationSchedule({}, 2, 2)


def pipeline() -> TrainingPipeline:
    moves = {"photometric": PhotometricDistortion(), "zoom_out": ZoomOut(), "iou_crop": IoUCrop()}
    return TrainingPipeline({**moves, "flip": HorizontalFlip()})


@pytest.mark.parametrize("place", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_the_same_with_a_cache(
    make_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, workers: int
) -> None:
    annotations = load_annotations(*make_set(6))
    cache = ImageCache(annotations, (64, 64), tmp_path / "cache/images" if place == "disk" else None)
    plain, cached = (
        BatchLoader(
            DetectionDataset(annotations, pipeline(), ALWAYS, cache=each),
            TrainBatchSampler(6, 2, 0, (64, 64), None, ALWAYS),
            workers,
        )
        for each in (None, cache)
    )
    for epoch in (0, 1):
        for loader in (plain, cached):
            loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for expected, batch in zip(plain, cached, strict=True):
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.targets.boxes, expected.targets.boxes)

    def read(path: Path) -> None:
        raise AssertionError(f"{path} must come from the cache")

    monkeypatch.setattr(StoredImage, "read", read)
    for index in range(6):
        pixels, _ = cache.read(index).decode()
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(annotations.path(index))))


def test_large_images_are_kept_smaller(make_set: Any) -> None:
    annotation_file, folder = make_set(1, (480, 640))
    name = folder / "0.png"
    Image.open(name).save(name, "JPEG")
    cache = ImageCache(load_annotations(annotation_file, folder), (96, 128))
    assert len(cache.pixels) == 120 * 160 * 3
    direct = StoredImage.read(name).decode(4)[0]
    cache.read(0)
    image = cache.read(0)
    assert (image.height, image.width) == (480, 640)
    pixels, shrink = image.decode(1)
    assert shrink == 4
    np.testing.assert_array_equal(pixels, direct)
    dataset = DetectionDataset(cache.annotations, TrainingPipeline({}), ALWAYS, cache=cache)
    plain = DetectionDataset(cache.annotations, TrainingPipeline({}), ALWAYS)
    request = SampleRequest(0, 0, 96, 128)
    np.testing.assert_array_equal(dataset[request].image, plain[request].image)
    np.testing.assert_array_equal(dataset[request].boxes, plain[request].boxes)


def test_a_changed_or_missing_file_is_not_taken_from_the_cache(make_set: Any) -> None:
    annotations = load_annotations(*make_set(2))
    cache = ImageCache(annotations, (64, 64))
    before = [cache.read(index).decode()[0].copy() for index in range(2)]
    path = annotations.path(0)
    Image.new("RGB", (64, 48), "red").save(path)
    os.utime(path, (1, 1))
    assert (cache.read(0).decode()[0] == [255, 0, 0]).all()
    Image.new("RGB", (40, 40), "red").save(path)
    assert cache.read(0).height == 40
    np.testing.assert_array_equal(cache.read(1).decode()[0], before[1])


def test_a_cache_on_disk_serves_the_next_run_and_other_processes(make_set: Any, tmp_path: Path) -> None:
    annotations = load_annotations(*make_set(2))
    file = cache_file(annotations, (64, 64), tmp_path)
    ImageCache(annotations, (64, 64), file).read(1)
    again = pickle.loads(pickle.dumps(ImageCache(annotations, (64, 64), file)))
    assert again.states.any(axis=1).tolist() == [False, True]
    assert cache_file(annotations, (96, 64), tmp_path) != file
    with pytest.raises(UserError, match="cache=ram needs workers that are forked"):
        pickle.dumps(ImageCache(annotations, (64, 64)))


def test_no_room_is_said_at_once(make_set: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = load_annotations(*make_set(2))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cache=disk cannot keep 0\.0 GB in .* \(File too large\)"):
            ImageCache(annotations, (64, 64), tmp_path / "images.cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "images.cache").exists()
    monkeypatch.setattr(cache_module, "available_memory", lambda: 1)
    with pytest.raises(UserError, match=r"cache=ram needs .* GB for 2 images, and"):
        ImageCache(annotations, (64, 64))
    monkeypatch.setattr(cache_module, "available_memory", lambda: 30_000)
    ImageCache(annotations, (64, 64))
    with pytest.raises(UserError, match=r"for 2 images in each of 2 processes, .* use data.cache=disk"):
        ImageCache(annotations, (64, 64), processes=2)
