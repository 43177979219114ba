"""Compute ``float64.npz`` with the authors' implementation.

The float32 figures beside this file carry rounding that random weights and Adam's first steps magnify, differently on
every processor: the authors' own code misses its own six-step trajectory by 10 % of the gradient norm on another
machine. In float64 nothing of that is left, so one figure serves all machines and bounds can be strict.

    git clone https://github.com/lyuwenyu/RT-DETR
    pip install -r RT-DETR/rtdetrv2_pytorch/requirements.txt
    python tests/reference/compute_float64.py RT-DETR/rtdetrv2_pytorch

Arrays, in the order of the keys in ``<model>.json``: ``<model>/losses`` and ``<model>/grad_norms`` (not a number for
what is not trained); of ``trajectory_r18vd.json``: ``trajectory/loss``, ``trajectory/grad_norm``,
``trajectory/final_abs_mean`` and ``trajectory/ema_abs_mean``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
EPOCHS = {"r18vd": "120e", "r34vd": "120e", "r50vd_m": "7x", "r50vd": "6x", "r101vd": "6x"}
CONFIGS = {
    **{name: f"{name}_{epochs}_coco" for name, epochs in EPOCHS.items()},
    **{f"hgnetv2_{scale}": f"hgnetv2_{scale}_6x_coco" for scale in "lxh"},
    **{f"r18vd_sp{points}": f"r18vd_sp{points}_120e_coco" for points in (1, 2, 3)},
    **{f"{name}_dsp": f"{name}_dsp_{epochs}_coco" for name, epochs in [("r18vd", "3x"), ("r34vd", "1x")]},
    **{f"{name}_dsp": f"{name}_dsp_{epochs}_coco" for name, epochs in [("r50vd", "1x"), ("r50vd_m", "3x")]},
}


def main(checkout: Path) -> None:
    sys.path[:0] = [str(checkout), str(HERE)]
    os.chdir(checkout)
    arrays: dict[str, Any] = {}
    for name in CONFIGS:
        expected = json.loads((HERE / f"{name}.json").read_text())["train"]
        losses, norms = one_step(name, expected)
        arrays[f"{name}/losses"] = [losses[key] for key in expected["losses"]]
        arrays[f"{name}/grad_norms"] = [norms.get(key, np.nan) for key in expected["grad_norms"]]
    arrays |= {f"trajectory/{key}": values for key, values in six_steps().items()}
    np.savez_compressed(HERE / "float64.npz", **{key: np.array(values) for key, values in arrays.items()})


def authors_config(name: str) -> Any:
    from src.core import YAMLConfig

    path = f"configs/rtdetrv2/rtdetrv2_{CONFIGS[name]}.yml"
    backbone = YAMLConfig(path).yaml_cfg["RTDETR"]["backbone"]
    return YAMLConfig(path, **{backbone: {"pretrained": False}})


def with_reference_weights(model: nn.Module) -> nn.Module:
    from deterministic_weights import COMPUTED, tensor_for

    state = model.state_dict()
    filled = {key: old if key.endswith(COMPUTED) else tensor_for(key, tuple(old.shape)) for key, old in state.items()}
    model.load_state_dict(filled)
    model.decoder.num_denoising = 0
    model.decoder._generate_anchors = partial(rounded_anchors, model.decoder._generate_anchors)
    return model.double().train()


def rounded_anchors(generate: Callable[..., Any], *args: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    """Anchors whose logarithm is taken in float64 and rounded: in float32 its last bit depends on the processor."""
    anchors, valid = generate(*args, **settings, dtype=torch.float64)
    return anchors.float(), valid


def double_targets(counts: list[int]) -> list[dict[str, Tensor]]:
    from deterministic_weights import targets

    return [{"boxes": target["boxes"].double(), "labels": target["labels"]} for target in targets(counts)]


def one_step(name: str, expected: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    from deterministic_weights import image

    config = authors_config(name)
    model = with_reference_weights(config.model)
    targets = double_targets(expected["num_gts"])
    losses = config.criterion.train()(
        model(image("batch", 2, *expected["image_size_hw"]).double(), targets=targets), targets
    )
    sum(losses.values()).backward()
    norms = {key: p.grad.norm().item() for key, p in model.named_parameters() if p.grad is not None}
    return {key: loss.item() for key, loss in losses.items()}, norms


def six_steps() -> dict[str, list[float]]:
    from deterministic_weights import image
    from src.optim.ema import ModelEMA

    expected = json.loads((HERE / "trajectory_r18vd.json").read_text())
    config = authors_config("r18vd")
    model = with_reference_weights(config.model)
    criterion = config.criterion.train()
    optimizer = config.optimizer
    average = ModelEMA(model, expected["ema"]["decay"], expected["ema"]["warmups"])
    base_rates = [group["lr"] for group in optimizer.param_groups]
    targets = double_targets(expected["num_gts"])
    found: dict[str, list[float]] = {"loss": [], "grad_norm": []}
    for index in range(len(expected["steps"])):
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * min(1.0, (index + 1) / expected["warmup_duration"])
        images = image(f"step{index}", 2, *expected["image_size_hw"]).double()
        loss = sum(criterion(model(images, targets=targets), targets).values())
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), expected["clip_max_norm"])
        optimizer.step()
        average.update(model)
        found["loss"].append(loss.item())
        found["grad_norm"].append(norm.item())
    for key, state in (("final_abs_mean", model.state_dict()), ("ema_abs_mean", average.module.state_dict())):
        found[key] = [state[name].abs().mean().item() for name in expected[key]]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
