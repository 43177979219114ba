"""Errors at the command line, in one line that says what to do. Imports nothing heavy."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.runs.launching import common_folder, is_first_process


def answer_plainly(main: Callable[[], Any]) -> None:
    """Run a Hydra entry point; what the user can mend is printed as one line, with exit status 2.

    Args:
        main: function decorated by ``hydra.main``.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("of_first_process", _of_first_process, replace=True)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # has Hydra raise its errors instead of printing them
    try:
        main()
    except UserError as error:
        _stop(str(error))
    except (HydraException, OmegaConfBaseException) as error:  # before OSError, which some of Hydra's are
        cause = _user_error_within(error)
        _stop(str(cause) if cause else explain(error, Path(sys.argv[0]).resolve().parent / "conf"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at '{error.filename}'" if error.filename else ""
        _stop(f"the disk is full{where}: make room, then go on with resume= and the run's folder")
    except RuntimeError as error:
        if not _is_of_lost_process(error):
            raise
        _stop(f"another process of this run was lost, its own messages say why; go on with resume= ({error})")


def _is_of_lost_process(error: RuntimeError) -> bool:
    """Whether processes could not talk to each other any more, over gloo or NCCL."""
    return type(error).__name__.startswith("Dist") or ("gloo" in str(error) and "onnection" in str(error))


def explain(error: Exception, config_folder: Path) -> str:
    """One line for an error of composing the configuration, with the nearest right name.

    Args:
        error: raised by Hydra or OmegaConf.
        config_folder: the folder of configuration groups.
    """
    text = str(error)
    if found := re.search(r"Could not find '([\w/.-]+)'", text):
        group, _, option = found.group(1).rpartition("/")
        options = sorted(path.stem for path in (config_folder / group).glob("*.yaml"))
        return f"there is no {group}={option}: {nearest(option, options)}use one of {', '.join(options)}"
    found = re.search(r"Could not override '([\w/.@-]+)'", text) or re.search(r"full_key: ([\w.]+)", text)
    if found and ("not in struct" in text or "Could not override" in text):
        key = found.group(1)
        suggestion = _nearest_key(key, sorted(set(_keys(config_folder))))
        return f"there is no key '{key}': {suggestion}see `--cfg job` for all keys"
    return " ".join(text.split())


def _run_folder(resume: str | None, new: str, _root_: Any) -> str:
    """The folder of the run to resume, so that it goes on there; else a new one, the same for all processes."""
    from rtdetrv2_train.runs.resume import run_to_resume

    return common_folder(new, run_to_resume(resume, Path(new).parent, _root_) if resume else None)


def _of_first_process(value: str, otherwise: str | None) -> str | None:
    """What one process alone is to write, and what the others have instead."""
    return value if is_first_process() else otherwise


def _nearest_key(key: str, keys: list[str]) -> str:
    """A key that is nearly the same, or one whose last part is right."""
    return nearest(key, keys) or nearest(key, [k for k in keys if k.rpartition(".")[2] == key.rpartition(".")[2]][:1])


def _keys(config_folder: Path) -> Iterator[str]:
    """Every dotted key that the groups define."""
    from omegaconf import OmegaConf

    def walk(values: dict[str, Any], prefix: str) -> Iterator[str]:
        for key, value in values.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    for path in config_folder.rglob("*.yaml"):
        group = path.relative_to(config_folder).parts[:-1]
        at_root = not group or path.read_text(encoding="utf-8").startswith("# @package _global_")
        values = OmegaConf.to_container(OmegaConf.load(path))
        if isinstance(values, dict):
            yield from walk(values, "" if at_root else f"{group[0]}.")  # type: ignore[arg-type]


def _user_error_within(error: BaseException | None) -> UserError | None:
    """The :class:`UserError` that Hydra wrapped while building an object, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def _stop(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
