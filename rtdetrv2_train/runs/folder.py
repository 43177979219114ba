"""A run's folder: every name in it, and how runs are found; and where ``conf/`` is. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from rtdetrv2_train.errors import UserError

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"
ANALYSIS_FILE = "analysis.json"
HISTORY_FILE = "history.json"
REPORT_FILE = "report.html"
PICTURES_FILE = "predictions.png"
SPLIT_FILE = "split.json"
MODEL_FOLDER = "model"
EXPORT_FOLDER = "export"
CHECKPOINT_FOLDER = "checkpoints"
BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT = "best.ckpt", "last.ckpt", "last_previous.ckpt"


def newest_run(path: str | Path) -> Path:
    """The run that a path means: itself, or the newest run of a folder of runs; the path as it is if there is none."""
    path = Path(path)
    if (path / CONFIG_FILE).is_file() or not path.is_dir():
        return path
    runs = [config.parent for config in path.glob(f"*/{CONFIG_FILE}")]
    return max(runs, key=lambda run: (run / CONFIG_FILE).stat().st_mtime, default=path)


def run_folder_of(source: str | Path) -> Path | None:
    """The run that a path belongs to: the folder itself, or the one around a checkpoint or an export; None if none."""
    path = Path(source)
    for folder in (path, *list(path.parents)[:3]):
        if (folder / CONFIG_FILE).is_file():
            return folder
    return None


def config_folder() -> Path:
    """The folder of configuration groups: within an installed package, or beside the package in a checkout.

    Raises:
        UserError: if there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "model").is_dir():
            return folder
    raise UserError(f"the configuration that belongs to '{package}' is missing: install rtdetrv2-train again")
