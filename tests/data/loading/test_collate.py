"""A batch is channels-last in memory, and stays so until the model takes it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.collate import collate
from rtdetrv2_train.data.loading.dataset import DetectionDataset, Sample
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import EvalBatchSampler


def samples(count: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [
        Sample(
            image=generator.integers(0, 256, (32, 64, 3), dtype=np.uint8),
            boxes=generator.random((number, 4), dtype=np.float32),
            labels=np.arange(number),
            image_id=number,
            original_size=(32, 64),
        )
        for number in range(count)
    ]


def is_channels_last(images: torch.Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last)


def test_images_are_those_of_the_samples() -> None:
    made = samples(4)
    batch = collate(made)
    assert batch.images.shape == (4, 3, 32, 64)
    assert is_channels_last(batch.images)
    for image, sample in zip(batch.images, made, strict=True):
        np.testing.assert_array_equal(image.numpy(), sample.image.transpose(2, 0, 1))
    assert batch.targets.counts == (0, 1, 2, 3)


def test_a_view_of_an_image_is_batched_as_its_copy() -> None:
    """Some transforms return mirrored views, with negative strides."""
    (sample,) = samples(1)
    mirrored = Sample(sample.image[:, ::-1], sample.boxes, sample.labels, 0, (32, 64))
    np.testing.assert_array_equal(collate([mirrored]).images, collate([sample]).images.flip(3))


def test_the_layout_outlives_parts_copies_and_files() -> None:
    batch = collate(samples(5))
    assert all(is_channels_last(part.images) for part in batch.split(2))
    stream = io.BytesIO()
    torch.save(batch.images, stream)
    stream.seek(0)
    loaded = torch.load(stream)
    assert is_channels_last(loaded)
    assert torch.equal(loaded, batch.images)
    assert is_channels_last(batch.images.to(torch.float32) / 255)
    assert is_channels_last(batch.to("meta").images)


def test_the_layout_outlives_a_worker(make_set: Any) -> None:
    dataset = DetectionDataset(load_annotations(*make_set(4)))
    own, of_worker = (next(iter(BatchLoader(dataset, EvalBatchSampler(4, 4, (64, 64)), workers))) for workers in (0, 1))
    assert is_channels_last(of_worker.images)
    assert torch.equal(own.images, of_worker.images)
