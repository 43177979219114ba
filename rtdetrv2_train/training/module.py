"""The LightningModule, and what happens in one optimizer step.

From a batch to new weights, in this order:

1. ``data/loading`` yields a ``Batch`` of bytes with the totals of its step (``step_totals.py``); Lightning moves it to
   the device.
2. :meth:`DetectionModule.training_step` takes the loss. On one device a batch that runs out of memory (OOM) is split
   (``oom.py``).
3. :meth:`DetectionModule.loss_terms_of` runs the model in mixed precision (AMP) and the criterion in full precision.
4. Lightning runs the backward pass; under DDP the ranks share their gradients. With gradient accumulation, 1 to 4 come
   once for each batch of the step.
5. :meth:`DetectionModule.configure_gradient_clipping` takes the norm of the whole gradient, clips it, and makes the
   optimizer skip the step if it is NaN or Inf.
6. :meth:`DetectionModule.optimizer_step` lets the optimizer change the weights, then frees the gradients.
7. The learning-rate schedule moves on (:meth:`DetectionModule.configure_optimizers`).
8. Callbacks follow in this order: ``callbacks/nan_guard.py`` restores BatchNorm statistics if the step was skipped,
   ``callbacks/ema.py`` updates the EMA, ``callbacks/checkpointing.py`` saves a checkpoint or stops the run.

Validation uses the EMA. Each batch goes through :meth:`DetectionModule.validation_step`; rank 0 computes the metrics.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from rich.console import Console
from torch import Tensor, nn

from rtdetrv2_train.checkpoints.model_folder import ModelCard
from rtdetrv2_train.checkpoints.reading import MODEL_CARD_KEY
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.evaluation.coco import CocoEvaluator
from rtdetrv2_train.evaluation.metrics import CocoMetrics
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.training.muon import Muon, split_groups
from rtdetrv2_train.training.oom import SplitOnOOM
from rtdetrv2_train.training.optimizer import group_table, lay_out_state, parameter_groups
from rtdetrv2_train.training.recipe import Recipe, Schedule
from rtdetrv2_train.training.run_length import steps_per_epoch
from rtdetrv2_train.types import Batch, Detections, Targets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """Result of the latest training step. All tensors are on the device and detached.

    Attributes:
        loss_terms: weighted loss terms of the step's last batch, by the reference's names; their sum is the loss.
        gradient_norm: norm of the whole gradient before clipping; None before the first optimizer step.
    """

    loss_terms: Mapping[str, Tensor] = field(default_factory=dict)
    gradient_norm: Tensor | None = None

    @property
    def loss(self) -> Tensor:
        """The sum of the terms."""
        return torch.stack(tuple(self.loss_terms.values())).sum()


class DetectionModule(LightningModule):
    """Trains and validates a detector.

    Args:
        model: maps images (and targets, in training) to a ``ModelOutput``.
        criterion: maps model output and targets to loss terms.
        recipe: optimizer, learning-rate schedule and EMA.
        parameter_rules: see :func:`parameter_groups`.
        evaluator: computes COCO metrics of the validation set.
        from_scratch: whether no weights are pretrained; the recipe depends on it.
        max_detections: detections kept per image.
        card: description of the model for every checkpoint, so that it can be used without the run's folder.

    Attributes:
        step: result of the latest training step.
        metrics: metrics of the latest validation; None before the first.
        learning_rates: peak learning rates of the parameter groups.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        recipe: Recipe,
        parameter_rules: Mapping[str, Mapping[str, Any] | None],
        evaluator: CocoEvaluator,
        from_scratch: bool = True,
        max_detections: int = 300,
        card: ModelCard | None = None,
    ) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)  # kernels in the layout of the feature maps
        self.criterion = criterion
        self.recipe = recipe
        self.parameter_rules = parameter_rules
        self.evaluator = evaluator
        self.from_scratch = from_scratch
        self.max_detections = max_detections
        self.card = card
        self.step = StepResult()
        self.metrics: CocoMetrics | None = None
        self.learning_rates: list[float] = []
        self._split_on_oom = SplitOnOOM()
        self._schedule: Schedule | None = None
        self._validation_losses = torch.zeros(0)  # sum over images of each term, and their number

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch. With a world size of 1, a batch that runs out of memory (OOM) is split."""
        self.step = replace(self.step, loss_terms={})
        if self.trainer.world_size > 1:  # every backward pass is an all-reduce, so all ranks would have to split
            loss = self._loss(batch)
        else:
            loss = self._split_on_oom.loss(batch, self._loss, partial(self._discard_gradient, batch_idx))
        if self.step.loss_terms and self.trainer.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_step()
        return loss

    def _loss(self, batch: Batch) -> Tensor:
        with self.trainer.precision_plugin.forward_context():
            losses = self.loss_terms_of(batch)
        self.step = replace(self.step, loss_terms={name: term.detach() for name, term in losses.items()})
        total = torch.stack(tuple(losses.values())).sum()
        # A loss of NaN may have a finite gradient. Making that NaN, too, lets all ranks see it.
        return total * torch.where(total.detach().isfinite(), 1.0, float("nan"))

    def loss_terms_of(self, batch: Batch) -> dict[str, Tensor]:
        """Loss terms of one batch, by name. The criterion runs without AMP."""
        output = self.model(batch.images, batch.targets)
        with torch.autocast(self.device.type, enabled=False):
            return self.criterion(output, batch.targets)

    def _discard_gradient(self, batch_idx: int) -> None:
        if batch_idx % self.trainer.accumulate_grad_batches:
            raise UserError(
                "out of memory (OOM) during gradient accumulation, where this batch cannot be repeated in parts: lower "
                "recipe.max_batch_size_per_device, and continue with resume="
            )
        self.zero_grad(set_to_none=True)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clip the norm of the whole gradient. All ranks skip the step if the norm is NaN or Inf."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = self.schedule.max_gradient_norm or float("inf")
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            optimizer.found_inf = (~norm.isfinite()).float()  # makes the fused optimizer skip the step
        else:
            norm = norm / scaler._scale  # the gradient scaler of float16 AMP unscales and skips by itself
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        self.step = replace(self.step, gradient_norm=norm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, then free the gradients at once, as the next forward pass needs the memory."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def _log_step(self) -> None:
        terms = torch.stack(tuple(self.step.loss_terms.values()))
        terms = self.trainer.strategy.reduce(terms, reduce_op="mean")  # over ranks, in one all-reduce
        names = (f"loss/{name.removeprefix('loss_')}" for name in self.step.loss_terms)
        self.log("train/loss", terms.sum())
        self.log_dict(dict(zip(names, terms, strict=True)))
        if self.step.gradient_norm is not None:
            self.log("train/gradient_norm", self.step.gradient_norm)

    @property
    def schedule(self) -> Schedule:
        """The resolved recipe, once the trainer knows the length of the run."""
        if self._schedule is None:
            total_steps = int(self.trainer.estimated_stepping_batches)
            self._schedule = self.recipe.resolve(total_steps, self.from_scratch, steps_per_epoch(self.trainer))
        return self._schedule

    def configure_optimizers(self) -> Any:
        """AdamW or Muon over the parameter groups, with a learning-rate schedule that moves every step."""
        schedule = self.schedule
        groups = parameter_groups(self.model, self.parameter_rules, self.recipe.learning_rate, self.recipe.weight_decay)
        if schedule.optimizer == "muon":
            groups = split_groups(groups)
        if self.trainer.is_global_zero:
            for note in schedule.notes:
                log.info(note)
            if still := [group["name"] for group in groups if group["lr"] == 0]:
                log.warning(
                    "learning rate 0 still computes gradients and moves BatchNorm statistics (%s): use freeze=",
                    ", ".join(still),
                )
            num_frozen = sum(p.numel() for p in self.model.parameters() if not p.requires_grad)
            Console().print(group_table(groups, schedule.learning_rate_factor, num_frozen))
        for group in groups:
            group["lr"] *= schedule.learning_rate_factor
            del group["parameter_names"]
        self.learning_rates = [group["lr"] for group in groups]
        rate, betas = self.recipe.learning_rate, self.recipe.betas
        optimizer = (
            Muon(groups, rate, betas, factor=self.recipe.muon_factor(schedule))
            if schedule.optimizer == "muon"
            else torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
        )
        optimizer.register_load_state_dict_post_hook(lay_out_state)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.learning_rate_share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def forward(self, images: Tensor, original_sizes: Tensor) -> Detections:
        """Detections for uint8 or float images ``[B, 3, H, W]``. For the sizes ``[B, 2]`` see `detections_from`."""
        output = self.model(images)
        return detections_from(output.logits, output.boxes, original_sizes, self.max_detections)

    def on_validation_epoch_start(self) -> None:
        """Drop the detections and losses of the previous validation."""
        self.evaluator.reset()
        if self.trainer.state.fn == "fit":
            self._validation_losses = torch.zeros(len(self.criterion.weights) + 1, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the detections of one batch, and while training the losses of the last layer."""
        if not len(batch):  # of a rank without an image
            return
        output = self.model(batch.images)
        sizes = batch.targets.original_sizes
        detections = detections_from(output.logits, output.boxes, sizes, self.max_detections)
        self.evaluator.update(detections, batch.targets.image_ids)
        if self.trainer.state.fn == "fit":
            self._add_validation_losses(output, batch.targets)

    def _add_validation_losses(self, output: ModelOutput, targets: Targets) -> None:
        # The criterion needs layers and the encoder's proposals. Here the last layer stands in for both.
        last = ModelOutput(output.logits[None], output.boxes[None], output.logits, output.boxes)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.criterion(last, targets)
        terms = torch.stack([losses[f"loss_{name}"] for name in self.criterion.weights])
        self._validation_losses[:-1] += terms * len(targets)
        self._validation_losses[-1] += len(targets)

    def on_validation_epoch_end(self) -> None:
        """Compute metrics on rank 0 and broadcast them to all ranks."""
        self.evaluator.gather()
        limit = self.trainer.limit_val_batches
        if isinstance(limit, int) or limit < 1 or self.trainer.sanity_checking:
            self.evaluator.leave_out_unseen()
        measured = self.evaluator.compute() if self.trainer.is_global_zero else None
        first = self.metrics is None
        self.metrics = metrics = cast(CocoMetrics, self.trainer.strategy.broadcast(measured))
        # What says less than AP on the whole set must not choose the best checkpoint, which is by val/AP.
        group = "val_part" if metrics.is_partial else "val"
        self.log_dict({f"{group}/{name}": value for name, value in metrics.numbers.items()}, rank_zero_only=False)
        if metrics.is_partial and first and self.trainer.is_global_zero and not self.trainer.sanity_checking:
            log.warning(
                "trainer.limit_val_batches: AP is that of %d of %d images, so that there is no best checkpoint by it",
                metrics.images,
                metrics.all_images,
            )
        if self.trainer.state.fn == "fit":
            *terms, images = self.trainer.strategy.reduce(self._validation_losses, reduce_op="sum").tolist()
            losses = {f"loss_{name}": term / images for name, term in zip(self.criterion.weights, terms, strict=True)}
            losses["loss"] = sum(losses.values())
            self.log_dict({f"val/{name}": value for name, value in losses.items()}, rank_zero_only=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the model card in the checkpoint."""
        if self.card is not None:
            checkpoint[MODEL_CARD_KEY] = self.card.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint to resume is one of this model and these classes, in this order.

        Raises:
            UserError: if it is not.
        """
        before = checkpoint.get(MODEL_CARD_KEY, {}).get("class_names")
        if self.card is not None and before is not None and before != list(self.card.class_names):
            there, here = (
                ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
                for names in (before, self.card.class_names)
            )
            raise UserError(
                f"the run that is resumed has the classes {there}, but the data now has {here}: resume with those, or "
                "start a new run with init_from="
            )
        saved, own = checkpoint["state_dict"], self.state_dict()
        wrong = [n for n in {**own, **saved} if n not in saved or n not in own or saved[n].shape != own[n].shape]
        # Anchors follow from the image size, which may be another one now.
        if wrong := [n for n in wrong if not n.endswith((".anchors", ".valid_mask"))]:
            raise UserError(
                f"the checkpoint is of another model: {len(wrong)} of {len(own)} tensors differ, the first is "
                f"'{wrong[0]}'; resume with the model of the run, or start a new run with init_from="
            )
