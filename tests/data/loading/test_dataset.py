from __future__ import annotations

import json
import logging
from itertools import pairwise
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
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.data.loading.collate import collate
from rtdetrv2_train.data.loading.dataset import DetectionDataset
from rtdetrv2_train.data.loading.loader import BatchLoader
from rtdetrv2_train.data.loading.samplers import EvalBatchSampler, SampleRequest, TrainBatchSampler
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.types import Batch

ALWAYS = AugmentationSchedule({}, 2, 2)


def strong() -> TrainingPipeline:
    return TrainingPipeline(
        {
            "photometric": PhotometricDistortion(),
            "zoom_out": ZoomOut(),
            "iou_crop": IoUCrop(),
            "flip": HorizontalFlip(),
        }
    )


def batches(dataset: DetectionDataset, sampler: Any, workers: int = 0) -> BatchLoader:
    return BatchLoader(dataset, sampler, workers)


def test_evaluation_gives_resized_bytes_and_normalised_boxes(make_set: Any) -> None:
    annotations = load_annotations(*make_set(3))
    (batch,) = batches(DetectionDataset(annotations), EvalBatchSampler(3, 4, (96, 64)))
    assert isinstance(batch, Batch)
    assert batch.images.shape == (3, 3, 96, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last), "the model's own layout"
    expected = Image.open(annotations.path(1)).resize((64, 96), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(batch.images[1].permute(1, 2, 0).numpy(), np.asarray(expected))
    targets = batch.targets
    assert targets.counts == (2, 2, 2)
    assert targets.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert targets.labels.tolist() == [0, 1] * 3
    assert targets.image_ids.tolist() == [10, 11, 12]
    assert targets.original_sizes.tolist() == [[48, 64]] * 3
    expected_boxes = torch.tensor([[14 / 64, 11 / 48, 20 / 64, 10 / 48], [43 / 64, 27.25 / 48, 25 / 64, 30 / 48]])
    torch.testing.assert_close(targets.boxes, expected_boxes.repeat(3, 1))


def test_the_number_of_workers_changes_nothing(make_set: Any) -> None:
    annotations = load_annotations(*make_set(6))
    runs: list[list[Batch]] = []
    for workers in (0, 1, 2):
        sampler = TrainBatchSampler(6, 2, 7, (64, 64), [480, 640, 800], ALWAYS)
        loader = batches(DetectionDataset(annotations, strong(), ALWAYS, seed=7), sampler, workers)
        runs.append([])
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            runs[-1].extend(loader)
    for run in runs[1:]:
        for batch, expected in zip(run, runs[0], strict=True):
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.targets.boxes, expected.targets.boxes)
            assert torch.equal(batch.targets.image_ids, expected.targets.image_ids)
    assert not any(torch.equal(first.images, second.images) for first, second in pairwise(runs[0]))


def test_two_processes_see_the_pixels_of_one(make_set: Any) -> None:
    annotations = load_annotations(*make_set(8))
    dataset = DetectionDataset(annotations, strong(), ALWAYS, seed=7)
    alone = TrainBatchSampler(8, 4, 7, (64, 64), [480, 640, 800], ALWAYS)
    ranks = [TrainBatchSampler(8, 2, 7, (64, 64), [480, 640, 800], ALWAYS, rank, 2) for rank in (0, 1)]
    for epoch in (0, 1):
        for sampler in (alone, *ranks):
            sampler.set_epoch(epoch)
        for expected, *parts in zip(*(batches(dataset, sampler) for sampler in (alone, *ranks)), strict=True):
            assert torch.equal(torch.cat([part.images for part in parts]), expected.images)
            assert torch.equal(torch.cat([part.targets.boxes for part in parts]), expected.targets.boxes)


def test_seed_and_repetition_change_the_augmentation(make_set: Any) -> None:
    annotations = load_annotations(*make_set(1))
    request = SampleRequest(0, 0, 64, 64)
    dataset = DetectionDataset(annotations, strong(), ALWAYS, seed=1)
    image = dataset[request].image
    assert np.array_equal(dataset[request].image, image)
    assert not np.array_equal(dataset[request._replace(repeat=1)].image, image)
    assert not np.array_equal(DetectionDataset(annotations, strong(), ALWAYS, seed=2)[request].image, image)


def test_augmentation_stops_on_time_in_workers_that_live_on(make_set: Any) -> None:
    annotations = load_annotations(*make_set(4))
    plain = {number: np.asarray(Image.open(annotations.path(number))) for number in range(4)}
    schedule = AugmentationSchedule({"flip": {"stop": 2}}, 4, 4)
    sampler = TrainBatchSampler(4, 2, 0, (48, 64), None, schedule)
    pipeline = TrainingPipeline({"flip": HorizontalFlip(p=1.0)})
    loader = batches(DetectionDataset(annotations, pipeline, schedule), sampler, workers=2)
    iterator = None
    for epoch in range(4):
        sampler.set_epoch(epoch)
        seen = 0
        for batch in loader:
            for image, image_id in zip(batch.images, batch.targets.image_ids.tolist(), strict=True):
                expected = plain[image_id - 10][:, ::-1] if epoch < 2 else plain[image_id - 10]
                np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
                seen += 1
        assert seen == 4
        assert iterator in (None, loader._iterator), "the workers must be those of the first epoch"
        iterator = loader._iterator


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_a_bad_image_stops_the_run_in_one_line(make_set: Any, training: bool, workers: int) -> None:
    annotation_file, folder = make_set(2)
    annotations = load_annotations(annotation_file, folder)
    (folder / "1.png").write_bytes(b"no image")
    dataset = DetectionDataset(annotations, strong() if training else None, ALWAYS)
    loader = batches(dataset, EvalBatchSampler(2, 2, (32, 32)), workers)
    with pytest.raises(UserError, match=r"^the image '.*1\.png', listed in '.*set\.json', cannot be read") as raised:
        list(loader)
    if loader._iterator is not None:
        # The exception keeps the iterator alive, and workers that are left to the garbage collector take 5 s to end.
        loader._iterator._shutdown_workers()
    assert "\n" not in str(raised.value)
    assert "data.on_bad_image=skip" in str(raised.value)


def test_a_skipped_image_is_replaced_counted_and_named_once(make_set: Any, caplog: pytest.LogCaptureFixture) -> None:
    annotation_file, folder = make_set(4)
    annotations = load_annotations(annotation_file, folder)
    (folder / "1.png").unlink()
    dataset = DetectionDataset(annotations, strong(), ALWAYS, on_bad_image="skip")
    with caplog.at_level(logging.WARNING):
        samples = [dataset[SampleRequest(1, epoch, 32, 32)] for epoch in range(20)]
    assert {sample.image_id for sample in samples} == {10, 12, 13}
    assert [path.name for path in dataset.bad_images] == ["1.png"]
    assert caplog.text.count("1.png") == 1
    again = DetectionDataset(annotations, strong(), ALWAYS, on_bad_image="skip")
    assert np.array_equal(again[SampleRequest(1, 7, 32, 32)].image, samples[7].image)


def test_bad_images_are_counted_over_workers(make_set: Any) -> None:
    annotation_file, folder = make_set(6)
    annotations = load_annotations(annotation_file, folder)
    (folder / "1.png").unlink()
    (folder / "4.png").write_bytes(b"")
    dataset = DetectionDataset(annotations, strong(), ALWAYS, on_bad_image="skip")
    sampler = TrainBatchSampler(6, 2, 0, (32, 32), None, ALWAYS)
    assert sum(len(batch) for batch in batches(dataset, sampler, workers=2)) == 6
    assert [path.name for path in dataset.bad_images] == ["1.png", "4.png"]


def test_a_skipped_image_counts_in_evaluation(make_set: Any) -> None:
    annotation_file, folder = make_set(3)
    annotations = load_annotations(annotation_file, folder)
    (folder / "1.png").unlink()
    dataset = DetectionDataset(annotations, on_bad_image="skip")
    (batch,) = batches(dataset, EvalBatchSampler(3, 4, (32, 32)))
    assert batch.targets.image_ids.tolist() == [10, 11, 12]
    assert batch.images.flatten(1).max(dim=1).values.gt(0).tolist() == [True, False, True]
    assert batch.targets.original_sizes[1].tolist() == [48, 64]


def test_a_set_of_bad_images_only_is_an_error(make_set: Any) -> None:
    annotation_file, folder = make_set(2)
    annotations = load_annotations(annotation_file, folder)
    for path in folder.iterdir():
        path.unlink()
    dataset = DetectionDataset(annotations, strong(), ALWAYS, on_bad_image="skip")
    with pytest.raises(UserError, match=r"2 images of .* cannot be read"):
        dataset[SampleRequest(0, 0, 32, 32)]


def test_an_image_of_another_size_than_annotated_is_taken_as_it_is(make_set: Any) -> None:
    annotation_file, folder = make_set(1)
    Image.new("RGB", (40, 24), "red").save(folder / "0.png")
    annotations = load_annotations(annotation_file, folder)
    dataset = DetectionDataset(annotations)
    sample = dataset[SampleRequest(0, 0, 32, 32)]
    assert sample.original_size == (24, 40)
    np.testing.assert_allclose(sample.boxes * [40, 24, 40, 24], [[4, 6, 24, 16], [30.5, 12.25, 40, 24]], rtol=1e-5)
    assert dataset.resized_images == [folder / "0.png"]


def test_images_without_boxes_are_batched(make_set: Any) -> None:
    annotations = load_annotations(*make_set(2, annotations=[]))
    sampler = TrainBatchSampler(2, 2, 0, (32, 32), None, ALWAYS)
    (batch,) = batches(DetectionDataset(annotations, strong(), ALWAYS), sampler)
    assert batch.targets.counts == (0, 0)
    assert batch.targets.boxes.shape == (0, 4)
    assert batch.images.shape == (2, 3, 32, 32)


def test_image_ids_of_more_than_32_bits_survive(make_set: Any, tmp_path: Path) -> None:
    annotation_file, folder = make_set(1)
    content = json.loads(annotation_file.read_text())
    content["images"][0]["id"] = 2**63 - 1
    annotation_file.write_text(json.dumps(content))
    dataset = DetectionDataset(load_annotations(annotation_file, folder))
    assert collate([dataset[SampleRequest(0, 0, 32, 32)]]).targets.image_ids.tolist() == [2**63 - 1]
