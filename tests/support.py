"""What several tests need: composed configurations, models with the reference's weights, small data sets."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.backbones.resnet import ResNetVDConfig
from rtdetrv2_train.model.decoder import DecoderConfig
from rtdetrv2_train.model.detector import RTDETRv2
from rtdetrv2_train.model.hybrid_encoder import HybridEncoderConfig
from rtdetrv2_train.runs.model_configuration import configured_architecture
from rtdetrv2_train.system.resources import available_cores

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "reference"
BASES = ("r18vd", "r34vd", "r50vd_m", "r50vd", "r101vd", "hgnetv2_l", "hgnetv2_x", "hgnetv2_h")
ABLATIONS = ("r18vd_sp1", "r18vd_sp2", "r18vd_sp3", "r18vd_dsp", "r34vd_dsp", "r50vd_m_dsp", "r50vd_dsp")
MODELS = (*BASES, *ABLATIONS)
REFERENCE_THREADS = 2  # with which the figures were computed; float32 depends on it a little


def _deterministic_weights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deterministic_weights", REFERENCE / "deterministic_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


made = _deterministic_weights()


def composed(*overrides: str) -> DictConfig:
    """The configuration that ``train.py`` composes."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def chosen(name: str) -> str:
    """The override that chooses one of the reference's models."""
    return f"model={name}" if name in BASES else f"experiment={name}"


def figures(name: str) -> dict[str, Any]:
    """The reference's figures of a model."""
    return json.loads((REFERENCE / f"{name}.json").read_text())


def build(config: DictConfig, num_classes: int = 80, **decoder: Any) -> RTDETRv2:
    """The model of a configuration."""
    return RTDETRv2(configured_architecture(config.model, num_classes, **decoder))


def fill(model: nn.Module) -> None:
    """Give a model the weights behind the reference's figures. NumPy draws them in several threads."""

    def drawn(entry: tuple[str, Tensor]) -> Tensor:
        name, tensor = entry
        return tensor if name.endswith(made.COMPUTED) else made.tensor_for(name, tuple(tensor.shape))

    state = model.state_dict()
    with ThreadPoolExecutor(available_cores()) as threads:
        model.load_state_dict(dict(zip(state, threads.map(drawn, state.items()), strict=True)))


def fill_with_scores(model: nn.Module) -> None:
    """As ``fill``, with scores around a half instead of near nothing, whatever the model's width."""
    fill(model)
    for score_head in model.get_submodule("decoder.dec_score_head").children():
        nn.init.zeros_(score_head.bias)


def as_in_reference(model: nn.Module) -> nn.Module:
    """A model with the reference's weights, computed with as many threads as the figures."""
    torch.set_num_threads(REFERENCE_THREADS)
    fill(model)
    return model


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of rows after pairing them up.

    Two queries whose scores differ by a rounding error may change places, on another processor or with another number
    of threads, so their order is not compared.
    """
    distance = np.abs(ours[:, None] - theirs[None]).max(-1)
    rows, columns = linear_sum_assignment(distance)
    return float(distance[rows, columns].max())


def write_coco(folder: Path, num_images: int = 12, size: int | tuple[int, int] = 64, seed: int = 0) -> Path:
    """A small data set with one bright rectangle of one of two classes (ids 3 and 7) in each image."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    rows, columns = (size, size) if isinstance(size, int) else size
    for number in range(1, num_images + 1):
        picture = generator.integers(0, 60, (rows, columns, 3), dtype=np.uint8)
        category = int(generator.choice([3, 7]))
        side = min(rows, columns)
        width, height = (int(v) for v in generator.integers(side // 4, side // 2, 2))
        left, top = int(generator.integers(0, columns - width)), int(generator.integers(0, rows - height))
        picture[top : top + height, left : left + width] = (220, 40, 40) if category == 3 else (40, 40, 220)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "width": columns, "height": rows})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": category,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def small_model(
    num_classes: int = 4,
    num_layers: int = 3,
    num_points: Sequence[int] = (4, 4, 4),
    num_denoising: int = 10,
    blocks: Sequence[int] = (1, 1, 1, 1),
    width: int = 32,
    seed: int = 0,
) -> RTDETRv2:
    """A detector of the real classes with well under a million parameters, its statistics and biases not trivial."""
    torch.manual_seed(seed)
    architecture = Architecture(
        ResNetVDConfig(tuple(blocks), bottleneck=False, width=8),
        HybridEncoderConfig(width, num_heads=4, feedforward_width=32, expansion=0.5),
        DecoderConfig(
            width=32,
            num_queries=20,
            num_layers=num_layers,
            num_heads=4,
            feedforward_width=32,
            num_points=tuple(num_points),
            num_denoising=num_denoising,
        ),
        num_classes,
        image_size=(64, 64),
    )
    model = RTDETRv2(architecture)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "bias")) or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.1, 0.3)
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(17)
    return model.eval()
