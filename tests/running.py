"""Running the project's commands: in this process, or in one of their own where the process matters."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase

from rtdetrv2_train import cli
from tests.support import ROOT

TINY = (
    "model=nano",
    "model.image_size=[64,64]",
    "augment=light",
    "recipe.total_batch_size=4",
    "data.num_workers=0",
)
"""A run whose steps take a few hundredths of a second."""
WITHOUT_PICTURES = ("~callbacks.pictures", "~callbacks.curves")
"""For training where nobody looks at them: they take longer than all else in so small a run."""


def of_set(folder: Path) -> list[str]:
    """The overrides that choose a data set of ``write_coco``, for training and for validation."""
    parts = [f"data.{part}.{key}" for part in ("train", "val") for key in ("images", "annotations")]
    return [f"data.root={folder}", *(f"{key}={('images', 'annotations.json')['ann' in key]}" for key in parts)]


def run_command(name: str, *overrides: str, expect: int = 0, folder: Path | None = None, columns: int = 160) -> str:
    """Run a command of ``rtdetrv2`` in this process, and leave the process as it was.

    Args:
        name: of the command, such as ``train``.
        overrides: and options of Hydra's.
        expect: its exit status.
        folder: to run it in; None for an empty one that is removed afterwards.
        columns: of the terminal.

    Returns:
        What it wrote to standard output, and after that to standard error.
    """
    output, errors = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_working_in(folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        stack.enter_context(mock.patch.object(sys, "argv", [f"{name}.py"]))
        stack.enter_context(mock.patch.dict(os.environ, {"COLUMNS": str(columns)}))
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(_logging_kept())
        stack.enter_context(_hydra_kept())
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        try:
            cli.run(name, overrides)
        except SystemExit as stop:
            status = stop.code or 0
    text = output.getvalue() + errors.getvalue()
    assert status == expect, text[-6000:]
    return text


def start_script(script: str, *overrides: str, folder: Path, own_session: bool = False) -> subprocess.Popen[str]:
    """Start a script of the checkout in a process of its own, with as many threads as this one.

    Args:
        script: such as ``train.py``, or ``-m`` and a module.
        overrides: its arguments.
        folder: to run it in.
        own_session: whether it can be killed together with all processes that it starts.
    """
    what = script.split() if script.startswith("-") else [str(ROOT / script)]
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "COLUMNS": "160"}
    return subprocess.Popen(
        [sys.executable, *what, *overrides],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=own_session,
    )


def run_script(script: str, *overrides: str, folder: Path, expect: int = 0) -> str:
    """Run a script of the checkout in a process of its own; gives its standard output, then standard error."""
    with start_script(script, *overrides, folder=folder) as process:
        output, errors = process.communicate(timeout=400)
    assert process.returncode == expect, output[-3000:] + errors[-3000:]
    return output + errors


def last_line(output: str) -> str:
    """The last line that a command has written: where it failed, its error."""
    return output.strip().splitlines()[-1]


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """Hydra configures logging for the whole process, and the commands quieten Lightning's loggers."""
    loggers = [logging.root, *(v for v in logging.root.manager.loggerDict.values() if isinstance(v, logging.Logger))]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers, level in before:
            for handler in set(logger.handlers) - set(handlers):
                handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)


@contextlib.contextmanager
def _hydra_kept() -> Iterator[None]:
    hydra, config, version = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance()
    version_base = version.version_base
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = hydra
        HydraConfig.instance().cfg = config
        version.version_base = version_base
