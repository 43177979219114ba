"""Finding the run and the checkpoint to resume. Imports nothing heavy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.checkpoints import damage_of, newest_whole_checkpoint
from rtdetrv2_train.runs.configuration import differences, keys_of, read_config
from rtdetrv2_train.runs.folder import CONFIG_FILE, newest_run, run_folder_of
from rtdetrv2_train.runs.processes import was_restarted

log = logging.getLogger(__name__)

AUTO = "auto"

# What makes two runs the same; how fast and on what they are computed does not.
_SAME_RUN = ("model", "data", "augment", "recipe", "seed", "init_from", "freeze")
_MAY_DIFFER = ("data.num_workers", "data.cache")


def run_to_resume(resume: str, beside: Path, config: DictConfig, overrides: Sequence[str] = ()) -> Path | None:
    """The folder of the run to resume; None if there is none.

    Args:
        resume: as configured, a path or ``auto``: the run that has this configuration and the newest whole checkpoint.
        beside: folder of runs, where ``auto`` looks.
        config: as composed.
        overrides: those of the command line.
    """
    if resume != AUTO:
        return run_folder_of(newest_run(resume))
    return _newest_of_same_configuration(beside, config, keys_of(overrides))


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
    for broken, reason in found.broken.items():
        log.warning("passed over '%s', which is broken: %s", broken, reason)
    if found.path is None and resume != AUTO:
        raise UserError(f"there is nothing to resume at '{resume}': '{path}' holds no whole checkpoint")
    return found.path


def _newest_of_same_configuration(folder: Path, config: DictConfig, given: Sequence[str]) -> Path | None:
    """The run of a folder that has the newest whole checkpoint and this configuration; names the nearest other."""
    found: dict[Path, float] = {}
    others: list[tuple[int, str]] = []
    for path in folder.glob(f"*/{CONFIG_FILE}"):
        run = path.parent
        try:
            saved = OmegaConf.create(read_config(path))
            changed = _differences(saved, config, given)
        except (UserError, OmegaConfBaseException) as error:
            log.warning("passed over '%s': %s", run, " ".join(str(error).split()))
            continue
        checkpoint, broken = newest_whole_checkpoint(run)
        if changed:
            values = ", ".join(f"{name} ({old} there, {new} here)" for name, (old, new) in list(changed.items())[:3])
            others.append((len(changed), f"'{run}' differs in {values}{', ...' if len(changed) > 3 else ''}"))
        elif checkpoint is None:
            for name, reason in broken.items():
                log.warning("passed over '%s', which is broken: %s", name, reason)
        else:
            found[run] = checkpoint.stat().st_mtime
    if not found and others:
        log.warning("resume=auto begins a new run, as none has these settings: %s", min(others)[1])
    return max(found, key=lambda run: found[run], default=None)


def _differences(saved: DictConfig, config: DictConfig, given: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """What two configurations of the same run must have in common and have not.

    A key that the saved one lacks counts only if the command line gives it: others were added to ``conf/`` since.
    """
    changed = differences(saved, config, _SAME_RUN)
    return {
        name: (old, new)
        for name, (old, new) in changed.items()
        if name not in _MAY_DIFFER and (_has(saved, name) or any(name.startswith(key) for key in given))
    }


def _has(config: DictConfig, key: str) -> bool:
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    return isinstance(parent, DictConfig) and name in parent
