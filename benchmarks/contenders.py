"""RT-DETRv2 in three implementations, each trained and evaluated as its own project does it.

``ours``; ``huggingface``, RTDetrV2ForObjectDetection of transformers; ``authors``, from a checkout of their repository.
The authors' nano model uses our backbone; Hugging Face's has only the published widths, so there is no nano model of
it. Each implementation imports its packages when it is built, so that a process has the memory of one only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 80
LEARNING_RATE, WEIGHT_DECAY, MAX_GRADIENT_NORM = 1e-4, 1e-4, 0.1
AUTHORS_CONFIGS = {"r18vd": "r18vd_120e", "r34vd": "r34vd_120e", "r50vd": "r50vd_6x", "r101vd": "r101vd_6x"}


@dataclass(frozen=True)
class Setting:
    """How a model is computed.

    Attributes:
        device: name of the device.
        half: data type of mixed precision (AMP) of the model, ``bfloat16`` or ``float16``; None for float32.
        compiled: backend of ``torch.compile``; None for eager execution.
    """

    device: str = "cpu"
    half: torch.dtype | None = None
    compiled: str | None = None


class Contender:
    """One implementation of a model.

    Args:
        name: name of the model.
        size: side of the square images in pixels.
        batch: batch size.
        boxes: ground-truth boxes per image.
        freeze_batchnorm: freeze BatchNorm of the backbone, whatever the model's configuration says.
        setting: device, precision and compilation.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    amp_caches_weights = True  # PyTorch's default

    def __init__(
        self,
        name: str,
        size: int,
        batch: int,
        boxes: int,
        freeze_batchnorm: bool = False,
        setting: Setting = Setting(),
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.setting = setting
        self.images = torch.rand(batch, 3, size, size, generator=generator).to(setting.device)
        centres = torch.rand(batch, boxes, 2, generator=generator) * 0.6 + 0.2
        sides = torch.rand(batch, boxes, 2, generator=generator) * 0.3 + 0.05
        self.boxes = torch.cat([centres, sides], -1).to(setting.device)
        self.labels = torch.randint(0, CLASSES, (batch, boxes), generator=generator).to(setting.device)
        self.build(name, freeze_batchnorm)

    def build(self, name: str, freeze_batchnorm: bool) -> None:
        """Make ``model`` and ``optimizer``, compiled for training where the setting says so."""
        raise NotImplementedError

    def forward(self) -> Any:
        """Forward pass in training mode."""
        raise NotImplementedError

    def loss(self, output: Any) -> Tensor:
        """Matching, and the sum of all loss terms."""
        raise NotImplementedError

    def amp(self) -> AbstractContextManager[Any]:
        """Mixed precision, where the setting has it."""
        device, half = torch.device(self.setting.device).type, self.setting.half
        return torch.autocast(device, half, enabled=half is not None, cache_enabled=self.amp_caches_weights)

    def train_step(self) -> None:
        """Forward pass, loss, backward pass, gradient clipping, optimizer. Only the forward pass is in AMP."""
        with self.amp():
            output = self.forward()
        loss = self.loss(output)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()

    def predictor(self) -> Callable[[], Any]:
        """Inference in the fastest form that the project offers, to be called within :meth:`amp`."""
        raise NotImplementedError


class Ours(Contender):
    """This project."""

    amp_caches_weights = False  # as Lightning has it

    def build(self, name: str, freeze_batchnorm: bool) -> None:
        from rtdetrv2_train.api import build_criterion, build_model
        from rtdetrv2_train.model.compilation import compile_convolutions
        from rtdetrv2_train.system.allocator import keep_freed_memory
        from rtdetrv2_train.types import Targets

        keep_freed_memory()
        model = build_model(name, CLASSES).train()
        self.model = model.to(self.setting.device, memory_format=torch.channels_last)
        if freeze_batchnorm:
            freeze_batchnorms(self.model.get_submodule("backbone"))
        if self.setting.compiled:
            compile_convolutions(model, backend=self.setting.compiled)
        self.criterion = build_criterion(name)
        self.targets = Targets.from_list(
            [{"boxes": boxes, "labels": labels} for boxes, labels in zip(self.boxes, self.labels, strict=True)]
        )
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def forward(self) -> Any:
        return self.model(self.images, self.targets)

    def loss(self, output: Any) -> Tensor:
        return torch.stack(tuple(self.criterion(output, self.targets).values())).sum()

    def train_step(self) -> None:
        with self.amp():
            output = self.forward()
        self.loss(output).backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        nn.utils.clip_grads_with_norm_(parameters, MAX_GRADIENT_NORM, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def predictor(self) -> Callable[[], Any]:
        from rtdetrv2_train.api import fuse

        model = fuse(self.model.eval())
        if self.setting.compiled:
            model = torch.compile(model, backend=self.setting.compiled)
        return lambda: model(self.images)


class HuggingFace(Contender):
    """RTDetrV2ForObjectDetection of ``transformers``."""

    def build(self, name: str, freeze_batchnorm: bool) -> None:
        import transformers

        from rtdetrv2_train.api import build_model
        from rtdetrv2_train.export.huggingface import huggingface_config

        architecture = build_model(name, CLASSES).architecture
        content = huggingface_config(architecture, [f"class {index}" for index in range(CLASSES)])
        content["freeze_backbone_batch_norms"] = freeze_batchnorm or content["freeze_backbone_batch_norms"]
        model = transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config.from_dict(content)).train()
        self.model = model.to(self.setting.device)
        if self.setting.compiled:
            self.model.compile(backend=self.setting.compiled)
        self.targets = [
            {"boxes": boxes, "class_labels": labels} for boxes, labels in zip(self.boxes, self.labels, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def forward(self) -> Any:
        return self.model(self.images, labels=self.targets)

    def loss(self, output: Any) -> Tensor:
        loss: Tensor = output.loss
        return loss

    def predictor(self) -> Callable[[], Any]:
        model = self.model.eval()  # compiled since it was built, where the setting says so
        return lambda: model(self.images)


class Authors(Contender):
    """``rtdetrv2_pytorch`` of the authors. The environment variable ``RTDETR_AUTHORS`` names its folder."""

    def build(self, name: str, freeze_batchnorm: bool) -> None:
        checkout = Path(os.environ["RTDETR_AUTHORS"]).resolve()
        sys.path.insert(0, str(checkout))
        os.chdir(checkout)
        from src.core import YAMLConfig

        base = AUTHORS_CONFIGS.get(name, AUTHORS_CONFIGS["r18vd"])
        changes: dict[str, Any] = {
            "PResNet": {"pretrained": False, **({"freeze_norm": True} if freeze_batchnorm else {})}
        }
        if name == "nano":
            from rtdetrv2_train.api import build_model

            nano = build_model("nano", CLASSES)
            decoder = nano.decoder
            width = nano.encoder.width
            common = {"hidden_dim": width, "nhead": 4, "dim_feedforward": 128}
            changes["HybridEncoder"] = {
                **common, "in_channels": nano.backbone.out_channels, "expansion": 0.5, "depth_mult": 0.34
            }  # fmt: skip
            changes["RTDETRTransformerv2"] = {
                **common, "feat_channels": [width] * 3, "num_layers": len(decoder.dec_score_head),
                "num_queries": decoder.num_queries, "num_denoising": decoder.num_denoising,
            }  # fmt: skip
            changes["eval_spatial_size"] = [128, 128]
        config = YAMLConfig(f"configs/rtdetrv2/rtdetrv2_{base}_coco.yml", **changes)
        self.model = config.model.train()
        if name == "nano":
            self.model.backbone = nano.backbone
        self.model = self.model.to(self.setting.device)
        self.criterion = config.criterion.train().to(self.setting.device)
        if self.setting.compiled:
            self.model.compile(backend=self.setting.compiled)
        self.targets = [
            {"boxes": boxes, "labels": labels} for boxes, labels in zip(self.boxes, self.labels, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def forward(self) -> Any:
        return self.model(self.images, targets=self.targets)

    def loss(self, output: Any) -> Tensor:
        terms: dict[str, Tensor] = self.criterion(output, self.targets)
        return torch.stack(tuple(terms.values())).sum()

    def predictor(self) -> Callable[[], Any]:
        model = self.model.deploy()
        return lambda: model(self.images)


def freeze_batchnorms(module: nn.Module) -> None:
    """Replace every BatchNorm by a frozen one with the same values."""
    from rtdetrv2_train.model.layers import FrozenBatchNorm2d

    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, child.eps)
                frozen.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, frozen)


CONTENDERS: dict[str, type[Contender]] = {"ours": Ours, "huggingface": HuggingFace, "authors": Authors}
