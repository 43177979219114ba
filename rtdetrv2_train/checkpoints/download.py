"""Downloading a weight file once."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import torch

from rtdetrv2_train.errors import UserError


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
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except OSError as error:  # every failure of urllib, from no route to 404, is one
        raise UserError(f"{url} could not be fetched ({error}): {way_out}") from error
    return path
