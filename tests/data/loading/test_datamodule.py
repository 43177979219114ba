from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import albumentations as A
import hydra
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from PIL import Image

from rtdetrv2_train.data.augment.geometric import IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.mixup import MixUp
from rtdetrv2_train.data.augment.mosaic import Mosaic
from rtdetrv2_train.data.augment.photometric import PhotometricDistortion
from rtdetrv2_train.data.loading import datamodule as datamodule_module
from rtdetrv2_train.data.loading import loader as loader_module
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError

CONF = Path(__file__).resolve().parents[3] / "conf"


def build(root: Path, **changes: Any) -> CocoDataModule:
    arguments: dict[str, Any] = {
        "root": root,
        "train": {"images": "train", "annotations": "train.json"},
        "val": {"images": "val", "annotations": "val.json"},
        "image_size": [64, 64],
        "transforms": {"flip": A.HorizontalFlip(p=0.5)},
        "schedule": {},
        "reference_epochs": 2,
        "max_epochs": 2,
        "batch_size": 2,
        "eval_batch_size": 2,
        "num_workers": 0,
        **changes,
    }
    return CocoDataModule(**arguments)


@pytest.fixture
def root(make_set: Any, tmp_path: Path) -> Path:
    make_set(6, name="train")
    make_set(3, name="val")
    return tmp_path


def test_without_a_validation_set_the_same_tenth_of_the_images_is_held_out_every_time(
    make_set: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_set(20, name="train")
    with caplog.at_level("INFO"):
        first = build(tmp_path, val=None, split_file=tmp_path / "split.json")
        train, val = first.train_annotations, first.val_annotations
    assert "2 of 20 images are held out for validation" in caplog.text
    assert not set(train.file_names) & set(val.file_names)
    whole = build(tmp_path, val={"images": "train", "annotations": "train.json"}).val_annotations
    for part in (train, val):
        for index, name in enumerate(part.file_names):
            there = whole.file_names.tolist().index(name)
            assert all(np.array_equal(a, b) for a, b in zip(part.targets(index), whole.targets(there), strict=True))
            mine, theirs = part.raw_boxes[part.raw_images == index], whole.raw_boxes[whole.raw_images == there]
            assert np.array_equal(mine, theirs)
    for_evaluation = build(tmp_path, val=None, split_file=tmp_path / "split.json")
    for_evaluation.leave_out_training_set()
    assert for_evaluation.val_annotations.file_names.tolist() == val.file_names.tolist()
    assert for_evaluation.train_annotations is for_evaluation.val_annotations


def test_one_image_cannot_be_split(make_set: Any, tmp_path: Path) -> None:
    make_set(1, name="train")
    with pytest.raises(UserError, match=r"train\.json' has one image"):
        build(tmp_path, val=None).load()


def test_classes_are_known_without_a_trainer(root: Path) -> None:
    data = build(root)
    assert data.num_classes == 2
    assert data.class_names == ("cat", "dog")
    assert data.category_ids == (3, 7)
    assert (len(data.train_annotations), len(data.val_annotations)) == (6, 3)
    assert len(next(iter(data.train_dataloader()))) == 2


def test_a_missing_set_is_named_with_the_way_out(tmp_path: Path) -> None:
    data = build(tmp_path / "coco", train={"images": "train2017", "annotations": "annotations/instances.json"})
    expected = r"no data set at '.*coco': 'annotations/instances\.json' is missing\..*datasets/README\.md.*data\.root"
    with pytest.raises(UserError, match=expected):
        data.prepare_data()


def test_missing_images_are_found_before_training(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("2.png", "5.png"):
        (root / "train" / name).unlink()
    with pytest.raises(
        UserError, match=r"2 of 6 images of '.*train\.json' are not in '.*train', the first is '2\.png'"
    ):
        build(root).load()
    data = build(root, on_bad_image="skip")
    data.load()
    assert "2 of 6 images" in caplog.text
    assert sum(len(batch) for batch in data.train_dataloader()) == 6


def test_skipped_images_are_counted_at_the_end(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "train/2.png").write_bytes(b"")
    (root / "train/4.png").unlink()
    (root / "train/4.png").symlink_to(root / "train/4.png")
    same = {"images": "train", "annotations": "train.json"}
    data = build(root, on_bad_image="skip", val=same)
    assert sum(len(batch) for batch in data.train_dataloader()) == 6
    assert sum(len(batch) for batch in data.val_dataloader()) == 6
    assert "Too many levels of symbolic links" in caplog.text
    caplog.clear()
    data.teardown("fit")
    assert "2 images could not be read and were skipped" in caplog.text
    caplog.clear()
    data.teardown("fit")
    assert caplog.text == ""


def test_images_of_another_size_than_annotated_are_named_at_the_start_and_counted_at_the_end(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (root / "train").iterdir():
        Image.open(path).resize((32, 24)).save(path)
    data = build(root)
    data.load()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "6 of 6 images looked at are of another size than it says, 0.5 times as wide and 0.5 times" in warning
    assert "'0.png' with 32 x 24 pixels, not 64 x 48" in warning
    caplog.clear()
    list(data.train_dataloader())
    assert caplog.text == ""
    data.teardown("fit")
    assert "6 images are of another size than annotated, the first is" in caplog.text


def test_boxes_of_another_convention_are_said_and_refused_where_nothing_is_left(
    make_set: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shares = [{"id": n, "image_id": 10, "category_id": 3, "bbox": [0.1, 0.2, 0.3, 0.4]} for n in (1, 2)]
    make_set(2, name="train", annotations=shares)
    make_set(2, name="val")
    data = build(tmp_path)
    data.load()
    assert caplog.text.count("every bbox lies within 0 to 1") == 1
    with pytest.raises(UserError, match=r"train\.json' has no box to train on: every bbox lies within 0 to 1"):
        data.train_dataloader()


def test_one_range_of_values_holds_for_training_and_validation(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part, low, high in (("train", 20000, 21500), ("val", 20500, 21000)):
        values = np.linspace(low, high, 48 * 64).reshape(48, 64).astype(np.uint16)
        for path in (root / part).iterdir():
            Image.fromarray(values).save(path)
    data = build(root, transforms={}, image_size=[32, 32])
    data.load()
    assert data.pixel_range == pytest.approx((20000, 21500), abs=10)
    train, val = (next(iter(loader)).images for loader in (data.train_dataloader(), data.val_dataloader()))
    assert (int(train.min()), int(train.max())) == (pytest.approx(2, abs=3), pytest.approx(253, abs=3))
    assert (int(val.min()), int(val.max())) == (pytest.approx(85, abs=5), pytest.approx(170, abs=5))
    given = build(root, transforms={}, pixel_range=[20500, 21000])
    given.load()
    assert given.val_annotations.reading.pixel_range == given.pixel_range == (20500, 21000)
    assert "are read as those of 16 bits" not in caplog.text
    build(root, transforms={}, pixel_range=None).load()
    assert "train.json': values from 2" in caplog.text
    assert "are read as those of 16 bits" in caplog.text


def test_a_loop_of_links_is_named(root: Path) -> None:
    (root / "train/3.png").unlink()
    (root / "train/3.png").symlink_to(root / "train/3.png")
    with pytest.raises(UserError, match=r"3\.png', .* cannot be read \(Too many levels of symbolic links\)"):
        list(build(root).train_dataloader())
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(UserError, match="'loop' is missing"):
        build(root, val={"images": "loop", "annotations": "val.json"}).load()


def test_images_in_subfolders_are_found(root: Path) -> None:
    content = json.loads((root / "val.json").read_text())
    (root / "val/deep").mkdir()
    for image in content["images"]:
        (root / "val" / image["file_name"]).rename(root / "val/deep" / image["file_name"])
        image["file_name"] = f"deep/{image['file_name']}"
    (root / "val.json").write_text(json.dumps(content))
    assert len(build(root).val_annotations) == 3


def test_names_with_another_prefix_are_trained_and_evaluated_on(root: Path) -> None:
    for part in ("train", "val"):
        content = json.loads((root / f"{part}.json").read_text())
        for image in content["images"]:
            image["file_name"] = f"{part}\\{image['file_name']}".upper()
        content["categories"].append({"id": 9 + (part == "val"), "name": part})
        (root / f"{part}.json").write_text(json.dumps(content))
    data = build(root)
    assert sum(len(batch) for batch in data.train_dataloader()) == 6
    assert sum(len(batch) for batch in data.val_dataloader()) == 3
    assert data.val_annotations.file_names.tolist() == ["0.png", "1.png", "2.png"]


def test_a_set_without_boxes_cannot_be_trained_on(make_set: Any, tmp_path: Path) -> None:
    make_set(2, name="train", annotations=[])
    make_set(2, name="val")
    with pytest.raises(UserError, match="has no box to train on"):
        build(tmp_path).train_dataloader()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": [100, 64]}, r"data\.image_size is \[100, 64\]: .* multiples of 32"),
        ({"image_size": [64]}, r"data\.image_size"),
        ({"multiscale": [480, "x"]}, r"data\.multiscale is 'x'"),
        ({"batch_size": 0}, r"data\.batch_size is 0"),
        ({"num_workers": "many"}, r"data\.num_workers is 'many'"),
        ({"cache": "gpu"}, r"data\.cache is 'gpu'"),
        ({"exif": "turn"}, r"data\.exif is 'turn'"),
        ({"pixel_range": [5, 5]}, r"data\.pixel_range is \[5, 5\]"),
        ({"pixel_range": "wide"}, r"data\.pixel_range is 'wide'"),
        ({"repeat_threshold": 2}, r"data\.repeat_threshold is 2"),
        ({"seed": -1}, r"data\.seed is -1"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image is 'ignore'"),
        ({"train": {"images": "train"}}, r"data\.train\.annotations is not set"),
        ({"schedule": {"cutout": {"stop": 1}}}, r"names 'cutout'"),
    ],
)
def test_nonsense_is_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(root, **changes)


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (8, 7), (64, 16)])
def test_automatic_workers_leave_a_core_to_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, cores: int, workers: int
) -> None:
    monkeypatch.setattr(loader_module, "available_cores", lambda: cores)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = build(root, num_workers="auto").train_dataloader()
    assert loader.num_workers == workers
    assert loader.persistent_workers == (workers > 0)


def test_workers_fit_into_the_shared_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """64 MB are what a container has by default; too little of it ends workers by a signal."""
    batch = 4 * 3 * 640 * 800
    monkeypatch.setattr(loader_module, "available_cores", lambda: 8)
    monkeypatch.setattr(datamodule_module, "available_shared_memory", lambda: 64 * 2**20)
    large = {"image_size": [640, 800], "batch_size": 4, "num_workers": "auto"}
    loader = build(root, **large).train_dataloader()
    assert loader.num_workers == 64 * 2**20 // (2 * batch) == 5
    assert "7 workers need up to 86 MB of shared memory" in caplog.text
    assert "67 MB are free: give it more (docker run --shm-size=8g), or they may be killed; 5 are used" in caplog.text
    caplog.clear()
    assert build(root, **{**large, "num_workers": 5}).train_dataloader().num_workers == 5
    assert caplog.text == ""
    assert build(root, **{**large, "num_workers": 7}).train_dataloader().num_workers == 7
    assert "7 are used" in caplog.text


def compose(root: Path, augment: str) -> Any:
    """The YAML files of the data, with the values that they take from others."""
    config = OmegaConf.create(
        {
            "seed": 3,
            "trainer": {"max_epochs": 36},
            "model": {
                "epochs": 72,
                "image_size": [64, 96],
                "multiscale": [480, 640],
                "stop_augmentation_epoch": 71,
                "stop_multiscale_epoch": 70,
            },
            "data": OmegaConf.load(CONF / "data/auto.yaml"),
            "augment": OmegaConf.load(CONF / f"augment/{augment}.yaml"),
        }
    )
    files = {name: {"images": name, "annotations": f"{name}.json"} for name in ("train", "val")}
    return OmegaConf.merge(config, {"data": {"root": str(root), **files}})


def test_the_yaml_files_build_the_data_module(root: Path) -> None:
    data = hydra.utils.instantiate(compose(root, "dynamic").data, batch_size=2, num_workers=0)
    assert list(data.pipeline.transforms) == ["photometric", "zoom_out", "iou_crop", "flip"]
    crop = data.pipeline.transforms["iou_crop"]
    assert isinstance(crop, IoUCrop)
    assert crop.sampler_options == IoUCrop().sampler_options
    assert data.image_size == (64, 96)
    strong = [[data.schedule.active(name, epoch) for name in ("iou_crop", "flip", "multiscale")] for epoch in (34, 35)]
    assert strong == [[True, True, True], [False, True, False]]
    batch = next(iter(data.train_dataloader()))
    assert tuple(batch.images.shape[2:]) in {(64, 64), (64, 96)}


def test_a_transform_can_be_switched_off_from_the_command_line(root: Path) -> None:
    config = compose(root, "dynamic")
    config.augment.transforms.zoom_out = None
    data = hydra.utils.instantiate(config.data, batch_size=2)
    assert list(data.pipeline.transforms) == ["photometric", "iou_crop", "flip"]


def test_the_data_module_makes_the_cache_and_the_repeats(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain, cached = (build(root, multiscale=[640, 800], cache=place).train_dataloader() for place in (None, "disk"))
    assert all(torch.equal(a.images, b.images) for a, b in zip(plain, cached, strict=True))
    assert [file.suffix for file in (tmp_path / "cache/rtdetrv2_train").iterdir()] == [".images"]
    content = json.loads((root / "train.json").read_text())
    content["annotations"] = content["annotations"][:1]
    (root / "train.json").write_text(json.dumps(content))
    assert len(plain) == 3
    # One image of six has the rare class: it is seen sqrt(1 / (1 / 6)) = 2.4 times, seven images in all.
    assert sum(len(batch) for batch in build(root, batch_size=1, repeat_threshold=1.0).train_dataloader()) == 7


def test_light_augmentation_flips_only(root: Path) -> None:
    data = hydra.utils.instantiate(compose(root, "light").data, batch_size=2)
    assert list(data.pipeline.transforms) == ["flip"]
    assert data.schedule.changes(35) == ["multiscale is off from epoch 35 of 36"]


class Recorder(LightningModule):
    """Learns nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.trained: list[tuple[int, list[int], tuple[int, ...]]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        self.trained.append((self.current_epoch, batch.targets.image_ids.tolist(), tuple(batch.images.shape)))
        return self.weight * batch.images.float().mean()

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.evaluated += batch.targets.image_ids.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_trains_on_other_orders_in_every_epoch(root: Path) -> None:
    data = build(root, max_epochs=3, multiscale=[320], schedule={"multiscale": {"stop": 1}}, num_workers=1)
    module = Recorder()
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=root,
    )
    trainer.fit(module, datamodule=data)
    orders = [[id_ for at, ids, _ in module.trained if at == epoch for id_ in ids] for epoch in range(3)]
    assert all(sorted(order) == [10, 11, 12, 13, 14, 15] for order in orders)
    assert orders[0] != orders[1] or orders[1] != orders[2]
    sizes = [{shape for at, _, shape in module.trained if at == epoch} for epoch in range(3)]
    # Scaled epochs: 1 of 2 is 1 of 3.
    assert sizes == [{(2, 3, 32, 32)}, {(2, 3, 64, 64)}, {(2, 3, 64, 64)}]
    assert module.evaluated == [10, 11, 12] * 3


class Stream(Recorder):
    """Remembers the pixels and boxes of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, str]] = []

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        content = batch.images.numpy().tobytes() + batch.targets.boxes.numpy().tobytes()
        self.seen.append((self.current_epoch, batch_index, hashlib.sha256(content).hexdigest()))
        return super().training_step(batch, batch_index)


@pytest.mark.parametrize(("stop_at", "workers"), [(2, 0), (3, 1), (4, 2)])
def test_a_run_resumed_at_any_step_sees_what_an_uninterrupted_one_sees(root: Path, stop_at: int, workers: int) -> None:
    def run(max_steps: int, workers: int = 0, resume: Path | None = None) -> Stream:
        joining = {"mosaic": Mosaic(p=0.3), "mixup": MixUp(p=0.3)}
        moves = {"photometric": PhotometricDistortion(), "zoom_out": ZoomOut(), "iou_crop": IoUCrop()}
        data = build(
            root,
            max_epochs=3,
            multiscale=[320, 640],
            schedule={"zoom_out": {"stop": 1}},
            transforms=joining | moves,
            num_workers=workers,
        )
        module = Stream()
        trainer = Trainer(
            max_epochs=3,
            max_steps=max_steps,
            accelerator="cpu",
            logger=False,
            callbacks=[ModelCheckpoint(root / f"{max_steps}", every_n_train_steps=1, save_last=True, save_top_k=0)],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        return module

    # Workers have made later batches already when the run stops; they are made again.
    whole, first = run(-1), run(stop_at, workers)
    assert len(whole.seen) == 9
    assert len(set(whole.seen)) == 9
    rest = run(-1, workers, root / f"{stop_at}/last.ckpt")
    assert first.seen + rest.seen == whole.seen


def test_albumentations_is_told_not_to_call_home() -> None:
    code = "import os, rtdetrv2_train.data; print(os.environ['NO_ALBUMENTATIONS_UPDATE'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONF.parent)
    assert result.stdout.strip() == "1"
