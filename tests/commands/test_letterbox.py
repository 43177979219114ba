"""Images that keep their aspect ratio: in training, evaluation and prediction, and back to pixels of the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from rtdetrv2_train.data.augment.geometric import HorizontalFlip, IoUCrop, ZoomOut
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.data.images.decode import StoredImage
from rtdetrv2_train.data.images.resize import evaluation_input, fitted_size
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.inference.detector import Detector
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.training.module import DetectionModule
from tests.running import WITHOUT_PICTURES, of_set, run_command
from tests.support import write_coco

# Wide, high, square, tiny, and a thread: in inputs of all kinds.
SHAPES = [(40, 150), (150, 40), (64, 64), (7, 10), (3, 400), (480, 640)]
INPUTS = [(96, 96), (64, 160), (160, 64)]


class Finder(nn.Module):
    """A perfect detector of the bright rectangles of `write_coco`, by where the pixels are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor, targets: object = None) -> ModelOutput:
        boxes, logits = [], []
        for image in images.float().cpu().numpy():
            coloured = np.abs(image[0] - image[2])
            shares = (coloured / 180).clip(0, 1)
            columns, rows = np.nonzero(shares.max(0) > 0.5)[0], np.nonzero(shares.max(1) > 0.5)[0]
            left, right, top, bottom = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
            height, width = image.shape[1:]
            boxes.append([(left + right) / 2 / width, (top + bottom) / 2 / height])
            boxes[-1] += [(right - left) / width, (bottom - top) / height]
            red = image[0, top:bottom, left:right].mean() > image[2, top:bottom, left:right].mean()
            logits.append([9.0, -9.0] if red else [-9.0, 9.0])
        return ModelOutput(torch.tensor(logits)[:, None], torch.tensor(boxes, dtype=torch.float32)[:, None])


@pytest.mark.parametrize("size", INPUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_keeps_its_aspect_ratio_and_boxes_find_back(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 200, dtype=np.uint8)
    pixels, span = evaluation_input(image, size, letterbox=True)
    assert pixels.shape == (*size, 3)
    rows, columns = fitted_size(*shape, size)
    assert (pixels[:rows, :columns] == 200).all()
    assert not pixels[rows:].any()
    assert not pixels[:, columns:].any()
    assert rows == size[0] or columns == size[1], "it is as large as it can be"
    scale = min(size[0] / shape[0], size[1] / shape[1])
    assert abs(rows - shape[0] * scale) <= 0.5 or rows == 1
    assert abs(columns - shape[1] * scale) <= 0.5 or columns == 1
    # A box around all of the image, as shares of the input and back: exactly the image's size.
    np.testing.assert_allclose(np.array([rows, columns]) / size * span, shape, rtol=1e-12)


def test_without_a_letterbox_images_are_stretched() -> None:
    pixels, span = evaluation_input(np.full((40, 150, 3), 200, dtype=np.uint8), (96, 64), letterbox=False)
    assert (pixels == 200).all()
    assert pixels.shape == (96, 64, 3)
    assert span == (40, 150)


@pytest.mark.parametrize("size", INPUTS)
@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (120, 360)])
def test_augmented_boxes_follow_the_pixels_of_a_letterbox(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 90, dtype=np.uint8)
    image[60:110, 70:150] = (250, 20, 20)
    pipeline = TrainingPipeline(
        {"zoom_out": ZoomOut((1.0, 1.5), fill=9), "iou_crop": IoUCrop(), "flip": HorizontalFlip()}, letterbox=True
    )
    boxes = np.array([[70.0, 60, 150, 110]], dtype=np.float32)
    margins = 0
    for number in range(40):
        active = [name for name, bit in (("zoom_out", 1), ("iou_crop", 2), ("flip", 4)) if number & bit]
        pixels, found, labels = pipeline(StoredImage.of_pixels(image), boxes, np.array([1]), size, active, [number])
        assert pixels.shape == (*size, 3)
        # What zooming out leaves plain is 9; the margin is black, and always at the right or below.
        shown = pixels.max(axis=2) > 0
        rows, columns = int(shown.any(axis=1).sum()), int(shown.any(axis=0).sum())
        assert shown[:rows, :columns].all()
        assert rows == size[0] or columns == size[1]
        margins += (rows, columns) != size
        assert labels.tolist() == [1]
        red = pixels[..., 0].astype(int) - pixels[..., 1] > 115
        where_rows, where_columns = np.nonzero(red)
        extent = [where_columns.min(), where_rows.min(), where_columns.max() + 1, where_rows.max() + 1]
        np.testing.assert_allclose(found[0] * [*size[::-1], *size[::-1]], extent, atol=1.01)
        if "iou_crop" not in active:
            width, height = found[0, 2:] - found[0, :2]
            assert width * size[1] / (height * size[0]) == pytest.approx(80 / 50, rel=0.05)
    assert margins > 20


@pytest.mark.parametrize("size", INPUTS)
def test_predicted_boxes_are_pixels_of_the_file(size: tuple[int, int], tmp_path: Path) -> None:
    detector = Detector(Finder(), ("red", "blue"), size, letterbox=True)  # type: ignore[arg-type]
    for shape in ((64, 190), (190, 64), (128, 128), (900, 400)):
        root = write_coco(tmp_path / f"{shape}", 3, shape)
        content = json.loads((root / "annotations.json").read_text())
        scale = max(shape[0] / size[0], shape[1] / size[1], 1)
        for entry, annotation in zip(content["images"], content["annotations"], strict=True):
            found = detector.predict(root / "images" / entry["file_name"])
            left, top, width, height = annotation["bbox"]
            np.testing.assert_allclose(found.boxes[0], [left, top, left + width, top + height], atol=scale)
            assert found.names == [{3: "red", 7: "blue"}[annotation["category_id"]]]


@pytest.mark.parametrize("letterbox", [True, False])
def test_evaluation_scores_a_perfect_model_as_perfect(letterbox: bool, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set", 12, (200, 520))
    paths = {"images": "images", "annotations": "annotations.json"}
    data = CocoDataModule(
        root, paths, paths, image_size=[288, 320], transforms={}, schedule={}, reference_epochs=1, max_epochs=1,
        batch_size=2, eval_batch_size=5, num_workers=0, letterbox=letterbox,
    )  # fmt: skip
    data.load()
    evaluator = CocoEvaluator(data.val_annotations.ground_truth(), data.category_ids)
    nothing: Any = None
    module = DetectionModule(Finder(), nothing, nothing, {}, evaluator)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.metrics is not None
    assert module.metrics.AP50 == 1
    assert module.metrics.AP > 0.85


@pytest.mark.slow
def test_a_model_folder_remembers_the_shape_and_size_of_its_input(tmp_path: Path) -> None:
    """Trained with a letterbox; evaluated and predicted with elsewhere, where nothing but the folder says so."""
    root = write_coco(tmp_path / "set", 8, (60, 100))
    run_command(
        "train", "model=nano", "model.image_size=[64,96]", "data.letterbox=true", "trainer=cpu", *of_set(root),
        *WITHOUT_PICTURES,
        "recipe.total_batch_size=4", "data.num_workers=0", "trainer.max_epochs=1", f"run_folder={tmp_path / 'run'}",
    )  # fmt: skip
    shutil.copytree(tmp_path / "run/model", tmp_path / "elsewhere")
    source, annotations = f"checkpoint={tmp_path / 'elsewhere'}", root / "annotations.json"
    what = [f"source={root / 'images'}", f"annotations={annotations}", "threshold=0", "formats=[coco]", "device=cpu"]
    run_command("predict", source, *what, f"output={tmp_path / 'found'}")
    results = json.loads((tmp_path / "found/predictions.json").read_text())
    # So short a run finds nothing: some of its own detections are what is to be found. With stretched images the
    # evaluation would find others.
    content = json.loads(annotations.read_text())
    content["annotations"] = [
        {"id": number, "iscrowd": 0, "area": result["bbox"][2] * result["bbox"][3]}
        | {key: result[key] for key in ("image_id", "category_id", "bbox")}
        for number, result in enumerate(results[::10], start=1)
    ]
    (root / "made.json").write_text(json.dumps(content))
    output = tmp_path / "evaluated"
    of_made = [*of_set(root), "data.val.annotations=made.json"]
    run_command("eval", source, *of_made, "trainer=cpu", f"run_folder={output}")
    assert json.loads((output / "metrics.json").read_text())["AR100"] == pytest.approx(1, abs=1e-6)
    config = OmegaConf.load(output / "config.yaml")
    assert (list(config.data.image_size), config.data.letterbox) == ([64, 96], True)


def test_pictures_of_a_letterbox_are_resized_as_the_published_figures_were() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    pixels, _ = evaluation_input(image, (96, 96), letterbox=True)
    expected = Image.fromarray(image).resize((96, 58), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(pixels[:58], np.asarray(expected))
