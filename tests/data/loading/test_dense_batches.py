"""Mosaic and MixUp from the files of a set to its batches, and the epochs in which they take part."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from rtdetrv2_train.data.annotations import AnnotationTable
from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.mixup import ALONE, MixUp
from rtdetrv2_train.data.augment.mosaic import Mosaic
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.data.images.cache import ImageCache
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.collate import collate
from rtdetrv2_train.data.loading.dataset import DetectionDataset, Sample
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import SampleRequest, TrainBatchSampler
from rtdetrv2_train.data.loading.step_totals import OptimizerSteps
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.types import Batch, StepTotals
from tests.support import composed

ALWAYS = AugmentationSchedule({}, 2, 2)
BASES = ["r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_l", "hgnetv2_x", "hgnetv2_h", "nano"]


def usual() -> dict[str, Any]:
    moves = {"zoom_out": ZoomOut(), "iou_crop": IoUCrop(), "flip": HorizontalFlip()}
    return {"photometric": PhotometricDistortion(), **moves}


def dense(**changes: Any) -> TrainingPipeline:
    return TrainingPipeline({"mosaic": Mosaic(), "mixup": MixUp(), **usual(), **changes})


def sampler_of(images: int, schedule: AugmentationSchedule = ALWAYS, **changes: Any) -> TrainBatchSampler:
    batch_size = changes.pop("batch_size", 3)
    return TrainBatchSampler(images, batch_size, 7, (64, 64), [480, 640, 800], schedule, mixup=MixUp(), **changes)


def run(dataset: DetectionDataset, sampler: TrainBatchSampler, workers: int = 0, epochs: int = 2) -> list[Batch]:
    loader, batches = BatchLoader(dataset, sampler, workers), []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_equal(found: list[Batch], expected: list[Batch]) -> None:
    for batch, other in zip(found, expected, strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.targets.boxes, other.targets.boxes)
        assert torch.equal(batch.targets.labels, other.targets.labels)
        assert batch.targets.counts == other.targets.counts


def test_neither_workers_nor_a_resumed_run_change_anything(make_set: Any) -> None:
    dataset = DetectionDataset(load_annotations(*make_set(12)), dense(), ALWAYS, seed=7)
    whole = run(dataset, sampler_of(12))
    assert len({batch.images.numpy().tobytes() for batch in whole}) == 8
    for workers in (1, 3):
        assert_equal(run(dataset, sampler_of(12), workers), whole)
    rest = sampler_of(12)
    rest.resume_at(0, 2)
    assert_equal(run(dataset, rest), whole[2:])


def test_batches_are_the_same_on_ranks_and_accumulated(make_set: Any) -> None:
    dataset = DetectionDataset(load_annotations(*make_set(12)), dense(), ALWAYS, seed=7)
    alone = run(dataset, sampler_of(12, batches_per_step=2), epochs=1)
    ranks = [run(dataset, sampler_of(12, rank=rank, world_size=2), epochs=1) for rank in (0, 1)]
    assert_equal([ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]], alone)
    shares = [requests[0].own_share for requests in sampler_of(300)]
    assert len(set(shares)) > 40, "drawn for each batch"
    assert np.mean([share == ALONE for share in shares]) == pytest.approx(0.5, abs=0.2)


def test_what_is_no_mosaic_is_what_it_is_without(make_set: Any) -> None:
    annotations = load_annotations(*make_set(6))
    requests = [SampleRequest(index, epoch, 64, 64) for index in range(6) for epoch in range(6)]
    plain, some, never = (
        DetectionDataset(annotations, TrainingPipeline({**usual(), **more}), ALWAYS, seed=7)
        for more in ({}, {"mosaic": Mosaic()}, {"mosaic": Mosaic(p=0.0), "mixup": None})
    )
    same = [np.array_equal(plain[request].image, some[request].image) for request in requests]
    assert np.mean(same) == pytest.approx(0.5, abs=0.25)
    assert all(np.array_equal(plain[request].image, never[request].image) for request in requests)
    off = AugmentationSchedule({"mosaic": {"stop": 0}}, 2, 2)
    later = DetectionDataset(annotations, TrainingPipeline({**usual(), "mosaic": Mosaic(p=1.0)}), off, seed=7)
    assert all(np.array_equal(plain[request].image, later[request].image) for request in requests)


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("letterbox", [False, True])
def test_small_sets_and_images_without_boxes(make_set: Any, images: int, letterbox: bool) -> None:
    for name, changes in (("full", {}), ("empty", {"annotations": []})):
        pipeline = TrainingPipeline({"mosaic": Mosaic(p=1.0), **usual()}, letterbox)
        dataset = DetectionDataset(load_annotations(*make_set(images, name=name, **changes)), pipeline, ALWAYS)
        (batch,) = run(dataset, sampler_of(images, batch_size=4), epochs=1)
        assert len(batch) == 4
        assert (sum(batch.targets.counts) > 4) == (name == "full")


def test_a_cached_image_gives_the_same_mosaic(make_set: Any) -> None:
    annotations = load_annotations(*make_set(4))
    cached = DetectionDataset(annotations, dense(), ALWAYS, seed=7, cache=ImageCache(annotations, (64, 64)))
    expected = run(DetectionDataset(annotations, dense(), ALWAYS, seed=7), sampler_of(4))
    for _ in range(2):
        assert_equal(run(cached, sampler_of(4)), expected)


def photographs(folder: Path, annotations: AnnotationTable) -> None:
    """Smooth images as JPEGs, under the names that the set has."""
    for index in range(len(annotations)):
        waves = np.sin(np.mgrid[:48, :64].sum(axis=0) / (5 + index))[..., None] * [90, 60, 30] + 128
        Image.fromarray(waves.astype(np.uint8)).save(folder / f"{index}.png", "JPEG")


def test_a_bad_image_of_a_mosaic_is_named_and_replaced(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    annotation_file, folder = make_set(4)
    annotations = load_annotations(annotation_file, folder)
    photographs(folder, annotations)
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[: len(content) // 2])  # its header is whole
    (folder / "2.png").unlink()
    pipeline = TrainingPipeline({"mosaic": Mosaic(p=1.0), **usual()})
    requests = [SampleRequest(index, epoch, 64, 64) for index in (0, 3) for epoch in range(8)]
    dataset = DetectionDataset(annotations, pipeline, ALWAYS, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        samples = [dataset[request] for request in requests]
    assert [path.name for path in dataset.bad_images] == ["1.png", "2.png"]
    assert len(caplog.records) == 2
    assert {sample.image_id for sample in samples} == {10, 13}
    again = DetectionDataset(annotations, pipeline, ALWAYS, on_bad_image="skip")
    for request, sample in reversed(list(zip(requests, samples, strict=True))):
        assert np.array_equal(again[request].image, sample.image), "whatever was read before"
    strict = DetectionDataset(annotations, pipeline, ALWAYS)
    with pytest.raises(UserError, match=r"^the image '.*[12]\.png', listed in '.*set\.json', cannot be read"):
        [strict[request] for request in requests]
    for index in range(4):
        (folder / f"{index}.png").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"4 images of .* cannot be read"):
        DetectionDataset(annotations, pipeline, ALWAYS, on_bad_image="skip")[requests[0]]


def samples(share: float, *counts: int) -> list[Sample]:
    generator = np.random.default_rng(0)
    return [
        Sample(
            image=generator.integers(0, 256, (32, 64, 3), dtype=np.uint8),
            boxes=generator.random((count, 4), dtype=np.float32),
            labels=np.full(count, number),
            image_id=number,
            original_size=(32, 64),
            noise_seed=number,
            own_share=share,
        )
        for number, count in enumerate(counts)
    ]


def test_a_blended_batch_has_the_boxes_of_both_images_in_full() -> None:
    plain, mixed = collate(samples(ALONE, 2, 0, 3)), collate(samples(0.46, 2, 0, 3))
    assert mixed.images.dtype == torch.uint8
    assert mixed.images.is_contiguous(memory_format=torch.channels_last)
    expected = 0.46 * plain.images.double() + 0.54 * plain.images.double().roll(1, 0)
    assert (mixed.images - expected).abs().max() <= 0.5 + 1e-6
    assert mixed.targets.counts == (5, 2, 3)
    assert mixed.targets.labels.tolist() == [0, 0, 2, 2, 2, 0, 0, 2, 2, 2]
    boxes = plain.targets.boxes
    torch.testing.assert_close(mixed.targets.boxes, torch.cat([boxes, boxes[:2], boxes[2:]]))
    assert mixed.targets.image_index.tolist() == [0] * 5 + [1] * 2 + [2] * 3
    assert torch.equal(mixed.targets.image_ids, plain.targets.image_ids)
    assert torch.equal(mixed.targets.noise_seeds, plain.targets.noise_seeds)
    assert mixed.targets.totals == StepTotals(10.0, 5)


def test_an_image_alone_in_its_batch_is_not_blended_with_itself() -> None:
    (sample,) = samples(0.5, 2)
    batch = collate([sample])
    assert batch.targets.counts == (2,)
    np.testing.assert_array_equal(batch.images[0].permute(1, 2, 0), sample.image)


def test_the_totals_of_a_step_count_blended_boxes() -> None:
    step = [collate(samples(0.5, 1, 2)), collate(samples(ALONE, 4, 0))]
    totals = [batch.targets.step for batch in OptimizerSteps(batches_per_step=2).of(step)]
    assert totals == [StepTotals((6 + 4) / 2, 4)] * 2


def phases(*overrides: str, epochs: int | None = None) -> AugmentationSchedule:
    config = composed("augment=deim", *overrides)
    schedule: Any = OmegaConf.to_container(config.data.schedule, resolve=True)
    return AugmentationSchedule(schedule, config.data.reference_epochs, epochs or config.data.reference_epochs)


def active(schedule: AugmentationSchedule, name: str, epochs: int) -> list[int]:
    return [epoch for epoch in range(epochs) if schedule.active(name, epoch)]


@pytest.mark.parametrize(
    ("model", "epochs", "flat", "stop"),
    [
        ("r18vd", 120, 64, 117),
        ("r34vd", 120, 64, 117),
        *[(name, 60, 34, 58) for name in ("r50vd_m", "r50vd", "r101vd")],
    ],
)
def test_phases_are_the_published_ones(model: str, epochs: int, flat: int, stop: int) -> None:
    length = [f"model.epochs={epochs}", f"model.stop_augmentation_epoch={stop}", f"model.stop_multiscale_epoch={stop}"]
    schedule = phases(f"model={model}", *length)
    for name in ("mosaic", "mixup"):
        assert active(schedule, name, epochs) == list(range(4, flat))
    for name in ("photometric", "zoom_out", "iou_crop"):
        assert active(schedule, name, epochs) == list(range(4, stop))
    assert active(schedule, "flip", epochs) == list(range(epochs))
    assert active(schedule, "multiscale", epochs) == list(range(stop))
    assert "mosaic is on from epoch 4 of" in "".join(schedule.changes(4))
    assert [line.split()[0] for line in schedule.changes(flat)] == ["mosaic", "mixup"]


@pytest.mark.parametrize("model", BASES)
def test_phases_follow_the_epochs_of_every_model(model: str) -> None:
    config = composed(f"model={model}", "augment=deim")
    schedule, epochs = phases(f"model={model}"), config.model.epochs
    stop = min(4 + epochs // 2, config.model.stop_augmentation_epoch)
    assert active(schedule, "mosaic", epochs) == active(schedule, "mixup", epochs) == list(range(4, stop))
    assert active(phases(f"model={model}", epochs=1), "mosaic", 1) == []


def test_a_short_run_from_scratch_can_end_them_earlier() -> None:
    schedule = phases("model=r18vd", epochs=30)
    assert active(schedule, "mosaic", 30) == list(range(1, 16))
    stopped = schedule.stopped_by(12)
    assert active(stopped, "mosaic", 30) == active(stopped, "mixup", 30) == list(range(1, 12))
    assert {"mosaic", "mixup"} <= set(stopped.ends_earlier_than(schedule))


def test_probabilities_can_be_set_and_each_can_be_switched_off() -> None:
    config = composed("augment=deim", "augment.transforms.mosaic.p=0.2", "augment.transforms.mixup=null")
    assert config.data.transforms.mosaic.p == 0.2
    assert config.data.transforms.mixup is None
    assert list(composed().data.transforms) == ["photometric", "zoom_out", "iou_crop", "flip"]
