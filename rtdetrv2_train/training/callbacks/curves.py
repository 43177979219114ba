"""Precision-recall and F1 curves of each epoch in TensorBoard."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from rtdetrv2_train.training.module import DetectionModule


class Curves(Callback):
    """Draws precision-recall and F1 over score threshold of every class, after each validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, if there is a TensorBoard logger."""
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not loggers or not trainer.is_global_zero or not isinstance(pl_module, DetectionModule):
            return
        from rtdetrv2_train.evaluation.analysis.analysis import analyse
        from rtdetrv2_train.viz.charts import as_pixels, curve_charts  # matplotlib, which no step waits for
        from rtdetrv2_train.viz.fonts import shown_names

        analysis = analyse(pl_module.evaluator)
        for title, figure in curve_charts(analysis, shown_names(analysis.boxes.class_names)).items():
            for logger in loggers:
                tag = f"val/{title.lower().replace(' ', '_')}"
                logger.experiment.add_image(tag, as_pixels(figure), trainer.global_step, dataformats="HWC")
        for logger in loggers:
            logger.experiment.add_scalar("val/best_threshold", analysis.threshold, trainer.global_step)
