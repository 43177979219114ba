"""Atomic checkpoint writing: a checkpoint is written as a whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import atomic_save
from rtdetrv2_train.runs.folder import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT

_PARTS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"}


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically. Keeps the previous ``last.ckpt``, in case the last one is damaged."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: set[Path] = set()  # files known to be intact; a damaged one must not become the previous one

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            UserError: if it cannot be written. Earlier checkpoints are untouched.
        """
        path = Path(path)

        keep = path.name == LAST_CHECKPOINT and path in self._whole

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:  # given a path, torch hides why writing failed
                torch.save(checkpoint, file)

        try:
            atomic_save(path, write, previous=path.with_name(PREVIOUS_CHECKPOINT) if keep else None)
        except OSError as error:
            raise UserError(
                f"'{path}' could not be written ({error.strerror or error}): free disk space or repair the disk, then "
                f"continue from the previous checkpoint with resume={path.parent.parent}"
            ) from error
        self._whole.add(path)

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            UserError: if it is damaged, or not one of a training run.
        """
        content = load_tensors(path)
        if not content.keys() >= _PARTS:
            raise UserError(
                f"'{path}' is no checkpoint of a training run, which could be resumed: start from its weights with "
                f"init_from={path}"
            )
        self._whole.add(Path(path))
        return content
