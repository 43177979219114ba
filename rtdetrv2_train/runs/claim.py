"""The folder of a run or an evaluation: chosen, made, and held by one process at a time. Imports nothing heavy."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.runs.folder import CHECKPOINT_FOLDER, MODEL_FOLDER
from rtdetrv2_train.runs.processes import agreed_folder, is_rank_zero, slurm_folder, was_restarted
from rtdetrv2_train.runs.resume import AUTO, run_to_resume

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10  # data-loading workers outlive a killed process for some seconds, and hold its lock
_LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"


class ClaimedFolder:
    """A folder that belongs to this process.

    Args:
        path: the folder, absolute.
        is_new: whether it was made for this run; then it goes again with a start that fails.
    """

    def __init__(self, path: Path, is_new: bool) -> None:
        self.path = path
        self._removable = is_new

    def keep(self) -> None:
        """From here on, there is something in the folder that is worth keeping."""
        self._removable = False

    def clear_failed_start(self) -> None:
        """Remove the folder if it is new and nothing has begun in it."""
        if self._removable:
            shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def claimed_folder(
    config: DictConfig, overrides: Sequence[str], beside: Path, log_name: str
) -> Iterator[ClaimedFolder]:
    """The folder for what a configuration describes, the same on all ranks, with a log in it.

    Rank 0 holds a lock that the system releases when the process ends, however that happens.

    Args:
        config: of the command: ``run_folder``, and ``resume`` where there is such a key.
        overrides: those of the command line.
        beside: folder of runs that a new one is made in.
        log_name: name of the log file in the folder.

    Raises:
        UserError: if the folder holds another run, or another process works in it.
    """
    made: list[Path] = []
    path = agreed_folder(lambda: _chosen(config, overrides, beside, made))
    if not is_rank_zero():
        yield ClaimedFolder(path, is_new=False)
        return
    if not path.exists():
        path.mkdir(parents=True)
        made.append(path)
    folder = ClaimedFolder(path, is_new=bool(made))
    with ExitStack() as stack:
        stack.enter_context(_locked(path))
        stack.enter_context(_log_file(path / log_name))
        try:
            yield folder
        except BaseException:
            folder.clear_failed_start()
            raise


def _chosen(config: DictConfig, overrides: Sequence[str], beside: Path, made: list[Path]) -> Path:
    """The folder, by rank 0; notes it in ``made`` where it had to be made to keep others from the same name."""
    resume = config.get("resume")
    searched = resume and not (config.run_folder and resume == AUTO)
    resumed = run_to_resume(resume, beside, config, overrides) if searched else None
    if resumed and config.run_folder:
        raise UserError(f"a resumed run continues in its folder, '{resumed}': leave out run_folder=")
    if resumed:
        return resumed.absolute()
    if named := config.run_folder or slurm_folder(beside):
        path = Path(named).absolute()
        if _holds_a_run(path) and resume != AUTO and not was_restarted():
            raise UserError(
                f"'{path}' holds a run already: give another run_folder=, or continue it with resume={path}"
            )
        return path
    beside.mkdir(parents=True, exist_ok=True)
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = (beside / (name if number == 1 else f"{name}_{number}")).absolute()
        try:
            path.mkdir()
        except FileExistsError:
            continue
        made.append(path)
        return path
    raise UserError(f"'{beside}' holds too many runs that were started in this second: name one with run_folder=")


def _holds_a_run(path: Path) -> bool:
    return (path / MODEL_FOLDER).exists() or any(path.glob(f"{CHECKPOINT_FOLDER}/*.ckpt"))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another process works in '%s': waiting %d s for it to end", folder, _PATIENCE_SECONDS)
            lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        raise UserError(
            f"another process works in '{folder}': wait until it has ended, or stop it; a run of its own needs another "
            "run_folder="
        ) from None
    except NotImplementedError:
        log.debug("'%s' lies where files cannot be locked", folder)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Everything that is logged goes into a file, too; into an earlier one at its end."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)
        handler.close()
