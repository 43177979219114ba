"""The CSV logger of runs that are resumed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from rtdetrv2_train.training.csv_logger import AppendingCSVLogger


def log(folder: Path, step: int, **metrics: float) -> None:
    logger = AppendingCSVLogger(str(folder), name=None, version="csv")
    logger.log_metrics(metrics, step)
    logger.save()


def test_rows_of_an_earlier_start_stay_and_new_columns_are_added(tmp_path: Path) -> None:
    log(tmp_path, 0, loss=2.5)
    log(tmp_path, 1, loss=1.5, AP=0.25)
    rows = list(csv.DictReader((tmp_path / "csv" / "metrics.csv").open()))
    assert [(row["step"], row["loss"], row["AP"]) for row in rows] == [("0", "2.5", ""), ("1", "1.5", "0.25")]


def test_only_rank_0_touches_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, 0, loss=2.5)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "csv").iterdir()}
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log(tmp_path, 1, loss=1.5)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "csv").iterdir()} == before
