"""What names a checkpoint: a path, a web address, an id of the Hugging Face hub. Imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path

from rtdetrv2_train.errors import UserError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHT_FILES = {".pth", ".pt", ".ckpt", ".safetensors"}


def is_url(source: str) -> bool:
    """Whether ``source`` is a web address."""
    return source.startswith(("http://", "https://"))


def is_hub_id(source: str) -> bool:
    """Whether ``source`` is no path here, but may be ``organisation/name`` on the Hugging Face hub."""
    path = Path(source)
    return _HUB_ID.fullmatch(source) is not None and path.suffix.lower() not in _WEIGHT_FILES and not path.exists()


def check_checkpoint_source(source: str) -> None:
    """Check that there may be a checkpoint, without looking into it.

    Raises:
        UserError: if there can be none.
    """
    if not (is_url(source) or Path(source).exists() or is_hub_id(source)):
        raise UserError(
            f"checkpoint '{source}' does not exist: give a checkpoint file, a run's folder, a model folder, or a model "
            "id of the Hugging Face hub (organisation/name)"
        )
