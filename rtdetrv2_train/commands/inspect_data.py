"""``rtdetrv2 inspect``: what is in a data set and what is wrong with it, before or after somebody trains on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout
from omegaconf import DictConfig
from tqdm import tqdm

from rtdetrv2_train.commands.inspection_results import print_results, write_fixed, write_results
from rtdetrv2_train.commands.label_errors import review_labels
from rtdetrv2_train.console import print_line
from rtdetrv2_train.data.inspection.findings import Finding, Parts
from rtdetrv2_train.data.inspection.inspection import Inspected, inspect_set
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from rtdetrv2_train.data.inspection.recommendations import recommendations
from rtdetrv2_train.data.loading.datamodule import CocoDataModule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.configuration import build, with_saved
from rtdetrv2_train.runs.folder import newest_run

LOOKS_FILE, _LOCK_FILE = ".images_seen", ".lock"
_SECTIONS_OF_A_RUN = ("model", "data", "augment", "recipe")


def main(config: DictConfig, overrides: Sequence[str]) -> None:
    """Inspect as configured; the exit status is 1 where an error was found."""
    if any(each.level == "error" for each in inspect(config, overrides)):
        raise SystemExit(1)


def inspect(config: DictConfig, overrides: Sequence[str]) -> Sequence[Finding]:
    """Look at a data set, write page and findings, and perhaps annotations without what is wrong.

    Args:
        config: as composed from ``conf/inspect.yaml``.
        overrides: those of the command line, which count more than what a run has saved.

    Returns:
        what is wrong, the worst first.

    Raises:
        UserError: if the set cannot be read; the message is that of training.
    """
    run = newest_run(config.run) if config.run else None
    if run is not None:
        config = with_saved(config, run, _SECTIONS_OF_A_RUN, overrides)
    data, parts = _read(config)
    output = _output_of(config)
    with _alone(output):
        found = _look(config, data, parts, output)
        advice = recommendations(parts["train"], data.image_size)
        fixed = write_fixed(output, found) if config.fix else None
        reviewed = None if run is None else review_labels(run, found.parts, output)
        write_results(output, data, found, advice, fixed, reviewed)
    print_results(output, data, found, advice, fixed, reviewed, overrides)
    return found.findings


def _look(config: DictConfig, data: CocoDataModule, parts: Parts, output: Path) -> Inspected:
    """Look at everything, images that were seen before aside."""
    most_boxes = config.model.architecture.decoder.num_queries
    with (
        LooksFile(output / LOOKS_FILE, f"{data.root.absolute()}, {data.channels} channels") as looks_file,
        tqdm(total=sum(map(len, parts.values())), unit="images", disable=None, leave=False) as bar,
    ):
        if looks_file.recalled:
            print_line(f"{'continued':16} {looks_file.recalled:,} images were looked at before")
        return inspect_set(parts, data.further_parts(), data.image_size, most_boxes, looks_file, bar.update)


def _read(config: DictConfig) -> tuple[CocoDataModule, Parts]:
    """The parts as training reads them, but for missing images, which are findings."""
    data = cast(CocoDataModule, build(config.data, batch_size=1, multiscale=None, on_bad_image="skip"))
    try:
        return data, data.parts()
    except UserError:
        build(config.data, batch_size=1, multiscale=None).parts()  # whose message is that of training
        raise


def _output_of(config: DictConfig) -> Path:
    """The folder of the inspection, which is new, empty, or that of an earlier one."""
    output = Path(config.output or Path("inspections", Path(config.data.root).resolve().name))
    try:
        output.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in output.iterdir()}
    except OSError as error:
        raise UserError(f"'{output}' cannot be written: {error.strerror}; give another output=") from error
    if LOOKS_FILE not in names and names - {_LOCK_FILE}:
        raise UserError(f"'{output}' is there already and holds no inspection: give output= another folder")
    return output


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other processes out of the folder, where the file system has locks."""
    lock = FileLock(output / _LOCK_FILE)
    try:
        with contextlib.suppress(NotImplementedError):
            lock.acquire(blocking=False)
    except Timeout:
        raise UserError(
            f"another process works in '{output}': wait until it has ended, or give another output="
        ) from None
    try:
        yield
    finally:
        lock.release()
