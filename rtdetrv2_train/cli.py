"""``rtdetrv2 train | eval | predict | export | inspect | convert | demo``. Imports nothing heavy before one runs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from rtdetrv2_train.errors import UserError, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PROGRAM = "rtdetrv2"


class Command(NamedTuple):
    """A command: what it does, how it is called, and the module of :mod:`rtdetrv2_train.commands` that does it."""

    summary: str
    example: str
    module: str


COMMANDS = {
    "train": Command("train a detector", "model=r18vd data.root=datasets/mine", "train"),
    "eval": Command("measure a detector: COCO metrics, report", "run=runs/r18vd", "evaluate"),
    "predict": Command("find objects in images or a video", "run=runs/r18vd source=photos", "predict"),
    "export": Command("write a detector for other software", "run=runs/r18vd format=huggingface", "export"),
    "inspect": Command("look at a data set before training on it", "data.root=datasets/mine", "inspect_data"),
    "convert": Command("write a data set as COCO or YOLO", "source=mine format=yolo output=mine_yolo", "convert"),
    "demo": Command("try a detector on a local page", "run=runs/r18vd", "demo"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name.

    Args:
        arguments: of the command line, without the program; None for those of this process.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_help())
    elif name == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"{_PROGRAM} {version('rtdetrv2-train')}\n")
    elif name in COMMANDS:
        run(name, rest, program=f"{_PROGRAM} {name}")
    else:
        _stop(f"there is no command '{name}': {nearest(name, COMMANDS)}use one of {', '.join(COMMANDS)}")


def run(name: str, arguments: Sequence[str] | None = None, program: str | None = None) -> None:
    """Run a command under Hydra; what the user can mend is printed as one line, with exit status 2.

    Args:
        name: one of :data:`COMMANDS`.
        arguments: overrides and options of Hydra's; None for those of this process.
        program: how the command was called, for its help; None for the script of this process.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from rtdetrv2_train.runs.configuration_errors import explain, user_error_within
    from rtdetrv2_train.runs.folder import config_folder
    from rtdetrv2_train.runs.overrides import as_typed

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # has Hydra raise its errors instead of printing them
    sys.argv = [program or sys.argv[0], *as_typed(sys.argv[1:] if arguments is None else arguments)]
    failed: list[UserError] = []
    try:
        if any(argument.startswith("hydra.run.dir=") for argument in sys.argv):
            raise UserError("hydra.run.dir has no effect: give run_folder= to train and eval, output= to the others")
        folder = config_folder()
        task = _task(name, failed)
        hydra.main(config_path=str(folder), config_name=name, version_base="1.3")(task)()
        for error in failed:
            raise error
    except UserError as error:
        _stop(str(error))
    except (HydraException, OmegaConfBaseException) as error:  # before OSError, which some of Hydra's are
        cause = user_error_within(error)
        _stop(str(cause) if cause else explain(error, folder, name))
    except BrokenPipeError:  # of `rtdetrv2 train --help | head`
        sys.stderr.close()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" at '{error.filename}'" if error.filename else ""
        _stop(f"the disk is full{where}: make room, then continue with resume= and the run's folder")
    except RuntimeError as error:
        if not _is_of_lost_process(error):
            raise
        _stop(f"another process of this run was lost, its own messages say why; continue with resume= ({error})")


def _task(name: str, failed: list[UserError]) -> Callable[[DictConfig], Any]:
    """What Hydra calls with the composed configuration: a command's ``main``, after a look at the settings it is given.

    Args:
        name: of the command.
        failed: takes the error of a single run, before which Hydra would print lines of its own.
    """

    def task(config: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from rtdetrv2_train.commands import load_command
        from rtdetrv2_train.commands.preflight import check_settings
        from rtdetrv2_train.runs.configuration import command_line_overrides

        if "run_folder" in config and config.run_folder is None and HydraConfig.get().mode is RunMode.MULTIRUN:
            config.run_folder = HydraConfig.get().runtime.output_dir
        try:
            check_settings(config, name)  # takes no time, while the imports below take seconds
            return load_command(COMMANDS[name].module).main(config, command_line_overrides())
        except UserError as error:
            if HydraConfig.get().mode is not RunMode.RUN:
                raise
            failed.append(error)
        return None

    return task


def _is_of_lost_process(error: RuntimeError) -> bool:
    """Whether processes could not talk to each other any more, over gloo or NCCL."""
    return type(error).__name__.startswith("Dist") or ("gloo" in str(error) and "onnection" in str(error))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {_PROGRAM} {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    examples = [f"  {_PROGRAM} {name} {command.example}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Train RT-DETRv2 object detectors, measure them, and use them.",
            "",
            *lines,
            "",
            "Settings are key=value. Examples:",
            *examples,
            "",
            f"`{_PROGRAM} train --help` shows the groups to choose from, `{_PROGRAM} train --cfg job` every setting.",
            "",
        ]
    )


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
