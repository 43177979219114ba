"""Six steps through the LightningModule and the Trainer end where the authors' training loop ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from rtdetrv2_train.batch import Batch, Targets
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.training.module import DetectionModule
from rtdetrv2_train.training.recipe import Recipe
from rtdetrv2_train.training.weight_average import WeightAverage
from tests.support import as_in_reference, build, composed, figures, made


class Recorder(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.weights: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.learning_rates = [group["lr"] for group in optimizer.param_groups]

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        entry = {"loss": outputs["loss"].item(), "grad_norm": module.gradient_norm.item(), "lrs": self.learning_rates}
        self.steps.append(entry)
        self.weights = {name: tensor.clone() for name, tensor in module.model.state_dict().items()}


def test_six_steps_of_r18vd_follow_the_reference() -> None:
    expected, config = figures("trajectory_r18vd"), composed("model=r18vd")
    model = as_in_reference(build(config, num_denoising=0))
    recipe = Recipe(
        learning_rate_factor=1.0,
        warmup_steps=expected["warmup_duration"],
        decay="constant",
        max_gradient_norm=expected["clip_max_norm"],
        ema_decay=expected["ema"]["decay"],
        ema_ramp_steps=expected["ema"]["warmups"],
    )
    category = [{"id": 1, "name": "object"}]
    evaluator = CocoEvaluator({"images": [], "annotations": [], "categories": category}, [1])
    rules = OmegaConf.to_container(config.model.parameter_rules, resolve=True)
    module = DetectionModule(model, Criterion(), recipe, rules, evaluator)
    targets = Targets.from_list(made.targets(expected["num_gts"]))
    size = expected["image_size_hw"]
    batches = [Batch(made.image(f"step{index}", 2, *size), targets) for index in range(len(expected["steps"]))]
    recorder, average = Recorder(), WeightAverage()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[average, recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))

    for found, wanted in zip(recorder.steps, expected["steps"], strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-3)
        assert sorted(found["lrs"]) == pytest.approx(sorted(wanted["lrs"]))
    averaged = module.model.state_dict()  # which the callback leaves in the module at the end
    for kind, state in (("final_abs_mean", recorder.weights), ("ema_abs_mean", averaged)):
        for name, value in expected[kind].items():
            if torch.isfinite(torch.tensor(value)) and not name.endswith(made.COMPUTED):
                assert state[name].abs().mean().item() == pytest.approx(value, rel=1e-4, abs=1e-4), (kind, name)
