"""The metrics of every epoch, in ``history.json``."""

from __future__ import annotations

import json
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from rtdetrv2_train.files import save_json


class History(Callback):
    """Keeps the metrics of every epoch in ``history.json``.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch that was just validated. A resumed run replaces epochs that it repeats."""
        if not trainer.is_global_zero or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        epochs = json.loads(self.path.read_text()) if self.path.exists() else []
        entry: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        entry |= {name: value.item() for name, value in trainer.callback_metrics.items()}
        epochs = [*(e for e in epochs if e["epoch"] < trainer.current_epoch), entry]
        save_json(self.path, epochs)
