"""Weights for images of another number of channels than a model's: the kernels of the first convolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_RGB = 3


def with_channels(weights: Mapping[str, Tensor], name: str, channels: int) -> tuple[dict[str, Tensor], str]:
    """Weights whose first convolution takes images of ``channels`` instead of RGB.

    The kernels of the first three channels are kept, those of further ones are the mean of the three, and all are
    scaled by 3 / channels, so that outputs stay of the same size. One channel gets their sum: what the model computes
    of a grey image.

    Args:
        weights: a state dict.
        name: of the first convolution's kernels, ``[C', 3, k, k]``.
        channels: of the images.

    Returns:
        the weights, and a line for the log; the weights as they are and no line where nothing is to be done, or they
        are not of RGB.
    """
    kernels = weights.get(name)
    if kernels is None or kernels.ndim != 4 or channels == _RGB or kernels.shape[1] != _RGB:
        return dict(weights), ""
    if channels == 1:
        changed = kernels.sum(1, keepdim=True)
        how = "is the sum of red, green and blue"
    else:
        further = kernels.mean(1, keepdim=True).expand(-1, max(channels - _RGB, 0), -1, -1)
        changed = torch.cat([kernels[:, :channels], further], 1) * (_RGB / channels)
        rest = ", the others with their mean" if channels > _RGB else ""
        colours = "red, green and blue" if channels > _RGB else "red and green"
        how = f"begin with those of {colours}{rest}, times 3/{channels}"
    what = "kernel of the one channel" if channels == 1 else f"kernels of {channels} channels"
    return {**weights, name: changed.contiguous()}, f"'{name}': the {what} {how}"
