"""Lightning's CSV logger, for runs that are resumed."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment


class AppendingCSVLogger(CSVLogger):
    """Appends to the ``metrics.csv`` of an earlier start, which Lightning's deletes."""

    _is_open = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file, on rank 0."""
        path = Path(self.log_dir, "metrics.csv")
        aside = path.with_name("metrics_before.csv")
        if not self._is_open and path.exists():
            path.replace(aside)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            writer = super().experiment
        self._is_open = True
        if aside.exists():
            aside.replace(path)
            with path.open(newline="") as file:
                writer.metrics_keys = next(csv.reader(file), [])
        return writer
