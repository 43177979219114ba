"""Finding runs by their folders. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.yaml"


def newest_run(path: str | Path) -> Path:
    """The run that a path means: itself, or the newest run of a folder of runs; the path as it is if there is none."""
    path = Path(path)
    if (path / CONFIG_FILE).is_file() or not path.is_dir():
        return path
    runs = [config.parent for config in path.glob(f"*/{CONFIG_FILE}")]
    return max(runs, key=lambda run: (run / CONFIG_FILE).stat().st_mtime, default=path)


def run_folder_of(source: str | Path) -> Path | None:
    """The run that a path belongs to: the folder itself, or the one around a checkpoint; None if it is no run's."""
    path = Path(source)
    for folder in (path, *list(path.parents)[:2]):
        if (folder / CONFIG_FILE).is_file():
            return folder
    return None
