"""Finding the run and the checkpoint to resume. Imports nothing heavy."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.checkpoints import damage_of, newest_whole_checkpoint
from rtdetrv2_train.runs.folder import CONFIG_FILE, newest_run, run_folder_of
from rtdetrv2_train.runs.processes import was_restarted

log = logging.getLogger(__name__)

AUTO = "auto"

# What makes two runs the same; how fast and on what they are computed does not.
_SAME_RUN = ("model", "data", "augment", "recipe", "seed", "init_from", "freeze")
_MAY_DIFFER = ("num_workers", "cache")

_found: dict[tuple[str, Path], Path | None] = {}  # Hydra asks more than once, and must get the same answer
_broken: dict[Path, str] = {}


def run_to_resume(resume: str, beside: Path, config: DictConfig) -> Path | None:
    """The folder of the run to resume; None if there is none.

    Args:
        resume: as configured, a path or ``auto``: the run that has this configuration and the newest whole checkpoint.
        beside: folder of runs, where ``auto`` looks.
        config: as composed.
    """
    if resume != AUTO:
        return run_folder_of(newest_run(resume))
    key = (resume, beside)
    if key not in _found:
        _found[key] = _newest_of_same_configuration(beside, config)
    return _found[key]


def checkpoint_to_resume(resume: str | None, run_folder: str | Path) -> Path | None:
    """The checkpoint that a run resumes from; warns of those that are broken.

    Args:
        resume: as configured: a path, or ``auto``, which looks in the run's folder, as does a run whose processes were
            started again from outside.
        run_folder: of the run.

    Returns:
        None for a new run.

    Raises:
        UserError: if there is none at the path, or only broken ones.
    """
    if resume is None and was_restarted():
        resume = AUTO
    if resume is None:
        return None
    path = Path(run_folder) if resume == AUTO else newest_run(resume)
    if not path.is_dir() and resume != AUTO:
        reason = damage_of(path) if path.is_file() else "it does not exist"
        if reason:
            raise UserError(f"checkpoint '{path}' cannot be resumed ({reason}): give the run's folder instead")
        return path
    found = newest_whole_checkpoint(path)
    for broken, reason in (_broken | found.broken).items():
        log.warning("passed over '%s', which is broken: %s", broken, reason)
    _broken.clear()
    if found.path is None and resume != AUTO:
        raise UserError(f"there is nothing to resume at '{resume}': '{path}' holds no whole checkpoint")
    return found.path


def _newest_of_same_configuration(folder: Path, config: DictConfig) -> Path | None:
    """The run in a folder of runs that has the newest whole checkpoint, and this configuration."""
    wanted = _identity(config)
    found: dict[Path, float] = {}
    for saved in folder.glob(f"*/{CONFIG_FILE}"):
        if _identity(OmegaConf.load(saved)) != wanted:
            continue
        checkpoint, broken = newest_whole_checkpoint(saved.parent)
        if checkpoint is None:
            _broken.update(broken)
        else:
            found[saved.parent] = checkpoint.stat().st_mtime
    return max(found, key=lambda run: found[run], default=None)


def _identity(config: Any) -> dict[str, Any]:
    """Everything that two runs must have in common to be the same."""

    def plain(name: str) -> Any:
        value = OmegaConf.select(config, name)
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    identity = {name: plain(name) for name in _SAME_RUN}
    for name in _MAY_DIFFER:
        identity["data"].pop(name, None)
    return identity
