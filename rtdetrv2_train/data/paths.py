"""What ``data.train`` and ``data.val`` say of where a data set lies. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rtdetrv2_train.errors import UserError, check_number

PartConfig = Mapping[str, Any] | Sequence[Any] | str | None


def check_data_paths(root: str | Path, paths: Iterable[str | Path]) -> None:
    """Check that the files of a data set are where they should be.

    Args:
        root: folder that the paths are relative to.
        paths: of folders of images and annotation files; none: those that are found in the folder.

    Raises:
        UserError: if one is missing; the message names it.
    """
    for path in list(paths) or [""]:
        if not (Path(root) / path).exists():
            what = f"'{path}' is missing" if path else "there is no such folder"
            raise UserError(
                f"no data set at '{root}': {what}. Put COCO there as datasets/README.md says, or point "
                "data.root at your own set, in any format that is shown there"
            )


def checked_part(name: str, config: Any) -> PartConfig:
    """``data.train`` or ``data.val`` as it is given, without what is null.

    Raises:
        UserError: if keys contradict each other or a value makes no sense.
    """
    if config is None or isinstance(config, str):
        return config
    if isinstance(config, Mapping):
        given = {key: value for key, value in config.items() if value is not None}
        for key, other in (("images", "annotations"), ("annotations", "images")):
            if key in given and other not in given:
                raise UserError(f"data.{name}.{other} is not set: give a path relative to data.root")
        if "sources" in given and "images" in given:
            raise UserError(f"data.{name} has both sources and annotations: give one of them")
        fraction = given.get("fraction")
        if fraction is not None and not (isinstance(fraction, int | float) and 0 < fraction < 1):
            raise UserError(f"data.{name}.fraction is {fraction!r}: give a share above 0 and below 1, or null")
        if "seed" in given:
            check_number(f"data.{name}.seed", given["seed"], 0)
        if given.get("part", name) not in ("train", "val", "test"):
            raise UserError(f"data.{name}.part is '{given['part']}': give train, val or test")
        return given
    if isinstance(config, Sequence) and config:
        return [checked_part(name, entry) for entry in config]
    raise UserError(f"data.{name} is {config!r}: give a path, a list of paths, or images and annotations")


def paths_of(config: PartConfig) -> list[str]:
    """The paths that ``data.train`` or ``data.val`` names, relative to the root."""
    if config is None:
        return []
    if isinstance(config, str):
        return [config]
    if isinstance(config, Mapping):
        named = [str(config[key]) for key in ("annotations", "images") if config.get(key)]
        return named + paths_of(config.get("sources"))
    return [path for entry in config for path in paths_of(entry)]
