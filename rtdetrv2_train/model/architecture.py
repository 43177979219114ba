"""The typed description of a detector, shared by configurations, checkpoints and exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rtdetrv2_train.errors import UserError, check_number, nearest
from rtdetrv2_train.model.backbones.hgnetv2 import HGNetV2Config
from rtdetrv2_train.model.backbones.resnet import ResNetVDConfig
from rtdetrv2_train.model.decoder import DecoderConfig
from rtdetrv2_train.model.hybrid_encoder import HybridEncoderConfig

T = TypeVar("T")

COARSEST_STRIDE = 32
BackboneConfig = ResNetVDConfig | HGNetV2Config
_BACKBONES: dict[str, type[BackboneConfig]] = {config.kind: config for config in (ResNetVDConfig, HGNetV2Config)}
_NAMES = {"resnet_vd": "ResNet-vd", "hgnetv2": "HGNetv2"}
_MAY_BE_ZERO = ("encoder.num_layers", "encoder.num_fusion_blocks", "decoder.num_denoising")
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Architecture:
    """Everything that a model is built from. Equal architectures have weights of equal names and shapes.

    Attributes:
        backbone: kind and shape of the backbone.
        encoder: shape of the hybrid encoder.
        decoder: shape of the decoder.
        num_classes: number of classes C.
        image_size: (height, width) of the input in pixels, multiples of 32.
        in_channels: channels of the input: 3 for RGB.

    Raises:
        UserError: if the parts do not fit together.
    """

    backbone: BackboneConfig
    encoder: HybridEncoderConfig
    decoder: DecoderConfig
    num_classes: int
    image_size: tuple[int, int]
    in_channels: int = 3

    def __post_init__(self) -> None:
        levels = len(self.backbone.stage_channels) - 1
        if len(self.decoder.num_points) != levels:
            raise UserError(f"num_points gives {len(self.decoder.num_points)} levels, but the encoder has {levels}")
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            for key, value in ((f"{name}.{key}", value) for key, value in vars(part).items()):
                if isinstance(value, int):
                    check_number(f"model.architecture.{key}", value, 0 if key in _MAY_BE_ZERO else 1)
        check_number("in_channels", self.in_channels, 1)
        if self.num_classes < 1:
            raise UserError(f"num_classes={self.num_classes} must be at least 1")
        if any(side <= 0 or side % COARSEST_STRIDE for side in self.image_size):
            raise UserError(
                f"image_size must be (height, width), multiples of {COARSEST_STRIDE}, not {self.image_size}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "model.architecture") -> Architecture:
        """The architecture from plain data, which may be untrusted: nothing but dataclasses of the model is called.

        Args:
            values: as :meth:`to_dict` makes it, or ``conf/model/*.yaml`` with number of classes and image size.
            where: name of the key or file, for error messages.

        Raises:
            UserError: if a key is missing or unknown, or a value has the wrong type.
        """
        parts = dict(values)
        if isinstance(backbone := parts.get("backbone"), Mapping):
            kind = backbone.get("kind")
            if kind not in _BACKBONES:
                raise UserError(f"{where}.backbone.kind is {kind!r}: use {' or '.join(_BACKBONES)}")
            shape = {key: value for key, value in backbone.items() if key != "kind"}
            parts["backbone"] = _read(_BACKBONES[kind], shape, f"{where}.backbone")
        return _read(cls, parts, where)

    def to_dict(self) -> dict[str, Any]:
        """The architecture as plain data, for JSON, YAML or a checkpoint."""
        return {**asdict(self), "backbone": {"kind": self.backbone.kind, **asdict(self.backbone)}}

    @property
    def family(self) -> tuple[Any, ...]:
        """What tells published models apart. Decoder layers and sampling points do not count."""
        blocks = (self.backbone.kind, getattr(self.backbone, "bottleneck", None), self.backbone.blocks)
        return (*blocks, self.encoder.width, self.encoder.num_layers, self.encoder.expansion)

    def __str__(self) -> str:
        bottleneck = getattr(self.backbone, "bottleneck", None)
        block = "hg" if bottleneck is None else "bottleneck" if bottleneck else "basic"
        return (
            f"a {_NAMES[self.backbone.kind]} backbone of {', '.join(map(str, self.backbone.blocks))} {block} blocks, "
            f"encoder width {self.encoder.width}, CSP expansion {self.encoder.expansion:g} and "
            f"{self.decoder.num_layers} decoder layers"
        )


def _read(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping of its fields. Fields with a default may be left out."""
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}: give a mapping of keys to values")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [str(key) for key in values if key not in known]:
        raise UserError(f"{where} has no '{unknown[0]}': {nearest(unknown[0], known)}it has {', '.join(known)}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in values]:
        raise UserError(f"{where} lacks '{missing[0]}'")
    types = get_type_hints(kind)
    return kind(**{key: _value(types[key], value, f"{where}.{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """A value, checked against the type that the dataclass declares."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if (value is None and NoneType in options) or isinstance(value, options):
            return value
        return _value(options[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
        if len(kinds) == len(value):
            return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))  # noqa: B905
        raise UserError(f"{where} is {list(value)}: give {len(kinds)} values")
    if origin is Literal and value in options:
        return value
    if is_dataclass(kind):
        return _read(kind, value, where)  # type: ignore[arg-type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    expected = " or ".join(map(str, options)) if origin is Literal else _EXPECTED.get(kind, "a list")
    raise UserError(f"{where} is {value!r}: give {expected}")
