"""Pretrained backbones: the authors' releases, timm's ResNets, or a file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rtdetrv2_train.checkpoints.download import download, hub_or_its_cache
from rtdetrv2_train.checkpoints.input_channels import with_channels
from rtdetrv2_train.checkpoints.safe_loading import load_tensors
from rtdetrv2_train.checkpoints.sources import is_url
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.model.backbones.resnet import ResNetVD

_RELEASE = "https://github.com/lyuwenyu/storage/releases/download/v0.1/"
AUTHORS_BACKBONES = {
    "resnet18_vd": f"{_RELEASE}ResNet18_vd_pretrained_from_paddle.pth",
    "resnet34_vd": f"{_RELEASE}ResNet34_vd_pretrained_from_paddle.pth",
    "resnet50_vd": f"{_RELEASE}ResNet50_vd_ssld_v2_pretrained_from_paddle.pth",
    "resnet101_vd": f"{_RELEASE}ResNet101_vd_ssld_pretrained_from_paddle.pth",
    "hgnetv2_l": f"{_RELEASE}PPHGNetV2_L_ssld_pretrained_from_paddle.pth",
    "hgnetv2_x": f"{_RELEASE}PPHGNetV2_X_ssld_pretrained_from_paddle.pth",
    "hgnetv2_h": f"{_RELEASE}PPHGNetV2_H_ssld_pretrained_from_paddle.pth",
}
_TIMM = "timm:"
_TIMM_NAMES: dict[tuple[int, ...], str] = {  # by whether blocks are bottlenecks, and the blocks of each stage
    (False, 2, 2, 2, 2): "resnet18d",
    (False, 3, 4, 6, 3): "resnet34d",
    (True, 3, 4, 6, 3): "resnet50d",
    (True, 3, 4, 23, 3): "resnet101d",
}
_CLASSIFIER = re.compile(r"^(fc|head|classifier|last_conv)\.")
_NORM_EPS = 1e-5

# timm's name, ours; a stem, then blocks.
_TIMM_STEM = {
    "conv1.0.": "conv1.conv1_1.conv.",
    "conv1.1.": "conv1.conv1_1.norm.",
    "conv1.3.": "conv1.conv1_2.conv.",
    "conv1.4.": "conv1.conv1_2.norm.",
    "conv1.6.": "conv1.conv1_3.conv.",
    "bn1.": "conv1.conv1_3.norm.",
}
_TIMM_BLOCK = re.compile(r"^layer(\d+)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)$")


def load_pretrained_backbone(backbone: nn.Module, source: str) -> str:
    """Load pretrained weights into a backbone.

    Args:
        backbone: a :class:`ResNetVD` or :class:`HGNetV2`.
        source: a key of :data:`AUTHORS_BACKBONES`, a URL, ``timm:`` and a name (``resnet18d``, ``34d``, ``50d``,
            ``101d``, with or without a tag), or a file with the authors' or timm's names.

    Returns:
        One line that says what was loaded, for the log.

    Raises:
        UserError: if the weights cannot be downloaded or read, or belong to another backbone. Nothing is loaded then.
    """
    weights = _fetch(source, _ways(backbone))
    if "layer1.0.conv1.weight" in weights:
        weights = from_timm(weights)
    first = f"{backbone.first_convolution}.weight"
    channels = int(backbone.get_parameter(first).shape[1])
    weights, note = with_channels(weights, first, channels)
    own = {name: tensor for name, tensor in backbone.state_dict().items() if not _is_counter(name)}
    given = {k: v for k, v in weights.items() if not _is_counter(k) and not _CLASSIFIER.match(k)}
    for name in [*own, *given]:
        here, there = _shape(own.get(name)), _shape(given.get(name))
        if here != there:
            raise UserError(
                f"pretrained weights '{source}' belong to another backbone: '{name}' is {there} there and {here} here; "
                "set model.pretrained to weights of this backbone, or to null to start from scratch"
            )
    backbone.load_state_dict(given, strict=False)
    return f"backbone: {len(given)} pretrained tensors from {source}" + (f"; {note}" if note else "")


def from_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of timm's ``resnet*d`` under the reference names; its classifier is left out.

    Where timm's first block of basic blocks adds its input unchanged, ours projects it: that projection becomes the
    identity, so that both compute the same.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        new_name = _from_timm_name(name)
        if new_name is not None:
            converted[new_name] = tensor
    shortcut = "res_layers.0.blocks.0.short"
    if f"{shortcut}.conv.weight" not in converted:
        channels = len(converted["res_layers.0.blocks.0.branch2b.conv.weight"])
        converted[f"{shortcut}.conv.weight"] = torch.eye(channels)[:, :, None, None]
        converted[f"{shortcut}.norm.weight"] = torch.full((channels,), math.sqrt(1 + _NORM_EPS))
        converted[f"{shortcut}.norm.bias"] = torch.zeros(channels)
        converted[f"{shortcut}.norm.running_mean"] = torch.zeros(channels)
        converted[f"{shortcut}.norm.running_var"] = torch.ones(channels)
    return converted


def _from_timm_name(name: str) -> str | None:
    if _CLASSIFIER.match(name):
        return None
    for theirs, ours in _TIMM_STEM.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    match = _TIMM_BLOCK.match(name)
    if match is None:
        return name  # the comparison with the model will name it
    layer, block, kind, number, rest = match.groups()
    if kind == "downsample.":
        pooled = "" if layer == "1" else "conv."  # the first stage keeps its size, so nothing is pooled there
        part = f"short.{pooled}{'conv' if number == '1' else 'norm'}"
    else:
        part = f"branch2{'abc'[int(number) - 1]}.{'conv' if kind == 'conv' else 'norm'}"
    return f"res_layers.{int(layer) - 1}.blocks.{block}.{part}.{rest}"


def _ways(backbone: nn.Module) -> str:
    """What to do where weights cannot be fetched; timm is named where it has a backbone of the same shape."""
    ways = [
        "make that address reachable",
        "set model.pretrained=/path/file.pth",
        "model.pretrained=null to train without",
    ]
    if isinstance(backbone, ResNetVD):
        blocks: list[Any] = [stage.blocks for stage in backbone.res_layers]
        name = _TIMM_NAMES.get((blocks[0][0].branch2c is not None, *map(len, blocks)))
        if name is not None:
            ways.insert(1, f"set model.pretrained={_TIMM}{name} (after `pip install timm`; needs its hub or cache)")
    return ", or ".join(ways)


def _fetch(source: str, ways: str) -> dict[str, Any]:
    if source.startswith(_TIMM):
        return _fetch_from_timm(source, ways)
    url = AUTHORS_BACKBONES.get(source, source)
    content = load_tensors(download(url, ways) if is_url(url) else source)
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _fetch_from_timm(source: str, ways: str) -> dict[str, Any]:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"model.pretrained={source} needs timm: `pip install timm`, or {ways}") from error
    try:
        with hub_or_its_cache():
            return timm.create_model(source.removeprefix(_TIMM), pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such model, no such weights
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"model.pretrained={source} could not be fetched by timm ({reason}): {ways}") from error


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
