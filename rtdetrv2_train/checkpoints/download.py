"""Downloading a weight file once, and telling within seconds that it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import atomic_save

_PATIENCE = 8.0  # seconds without an answer
_AGENT = {"User-Agent": "rtdetrv2-train"}


def download(
    url: str, way_out: str = "check the address and the network, or download it elsewhere and give the file"
) -> Path:
    """Download a file, unless it is in torch's cache already (``$TORCH_HOME/hub/checkpoints``).

    Args:
        url: a web address whose last part is the file's name.
        way_out: what the user can do if the download fails, for the error message.

    Raises:
        UserError: if it cannot be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(unquote(urlparse(url).path)).name
    if path.is_file():
        return path
    try:
        return atomic_save(path, lambda temporary: _fetch(url, temporary))
    except OSError as error:  # every failure of urllib, from no route to 404, is one
        raise UserError(f"{url} could not be fetched ({error}): {way_out}") from error


@contextmanager
def hub_or_its_cache() -> Iterator[None]:
    """Have huggingface_hub use its cache alone if its server does not answer, instead of retrying for a minute."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def _answers(url: str) -> bool:
    try:
        urlopen(Request(url, method="HEAD", headers=_AGENT), timeout=_PATIENCE).close()
    except HTTPError:  # an answer
        return True
    except OSError:
        return False
    return True


def _fetch(url: str, path: Path) -> None:
    with urlopen(Request(url, headers=_AGENT), timeout=_PATIENCE) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
        if answer.length:
            raise OSError(f"the connection was lost {answer.length:,} bytes before the end")
