"""Loading a checkpoint into a model, also one with other classes. A model is loaded as a whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint, make_checkpoint
from rtdetrv2_train.checkpoints.class_heads import is_class_head, with_rows
from rtdetrv2_train.checkpoints.input_channels import with_channels
from rtdetrv2_train.checkpoints.published import configuration_of, looks_like
from rtdetrv2_train.checkpoints.reading import read_checkpoint
from rtdetrv2_train.classes import match_classes
from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.detector import RTDETRv2

_COMPUTED = re.compile(r"decoder\.(anchors|valid_mask)|.*\.num_points_scale")
_POINTS = "decoder.decoder.layers.0.cross_attn.num_points_scale"
_COUNTER = "num_batches_tracked"
_DECODER_LAYER = re.compile(r"decoder\.(?:decoder\.layers|dec_score_head|dec_bbox_head)\.(\d+)\.")
ClassRows = Literal["auto", "by_position", "new"]
AUTO, BY_POSITION, NEW = get_args(ClassRows)
_HANDFUL = 5  # entries that may differ before a checkpoint is taken to be another model's


@dataclass(frozen=True)
class LoadReport:
    """Which entries were loaded.

    Attributes:
        source: where the weights came from.
        loaded: number of entries taken over, those of class heads among them if any of their rows was.
        num_classes: classes of the model.
        source_classes: classes of the checkpoint.
        missing: entries of the model that the checkpoint lacks; they keep their values.
        unexpected: entries of the checkpoint that the model lacks.
        reinitialised: class heads in which some or all classes keep their initial rows.
        copied_rows: names of the classes whose rows were found by name; empty if rows were not matched by name.
        by_position: whether all rows were loaded although the checkpoint does not name its classes.
        channels: what became of the kernels of RGB in a model of other channels; empty where nothing did.
    """

    source: str
    loaded: int
    num_classes: int
    source_classes: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()
    copied_rows: tuple[str, ...] = ()
    by_position: bool = False
    channels: str = ""

    def summary(self) -> list[str]:
        """Lines for the log."""
        lines = [f"loaded {self.loaded} tensors from {self.source}"]
        if self.channels:
            lines.append(self.channels)
        if self.copied_rows or self.reinitialised:
            shown = _some(self.copied_rows) if self.copied_rows else "none"
            lines.append(
                f"class heads: {len(self.copied_rows)} of {self.num_classes} classes found by name among the "
                f"checkpoint's {self.source_classes} ({shown}); the others keep their initial weights"
            )
        if self.by_position:
            lines.append(
                f"class heads: the checkpoint does not name its {self.source_classes} classes; they are taken to be "
                f"those of the data set, in the same order; use init_classes={NEW} if they are others"
            )
        if self.missing:
            lines.append(f"{len(self.missing)} not in the checkpoint, left as initialised: {_some(self.missing)}")
        if self.unexpected:
            lines.append(f"{len(self.unexpected)} in the checkpoint but not in the model: {_some(self.unexpected)}")
        return lines


def load_weights(
    model: RTDETRv2,
    source: str | Path | Mapping[str, Tensor] | Checkpoint,
    class_names: Sequence[str] | None = None,
    class_rows: ClassRows = AUTO,
) -> LoadReport:
    """Load a detector's weights.

    Anchors and other computed entries are never loaded.

    Args:
        model: a detector with the reference names.
        source: anything that :func:`read_checkpoint` reads, a checkpoint, or a state dict.
        class_names: of the model, in the order of its class indices.
        class_rows: which rows of class heads are loaded. ``auto``: those of classes with the same name (see
            :func:`match_classes`), or all of them where names are not known and there are as many classes;
            ``by_position``: all; ``new``: none.

    Returns:
        What was loaded and what was not.

    Raises:
        UserError: if the weights cannot be read or belong to another model. The model is not changed then.
        ValueError: if ``class_names`` does not fit the model.
    """
    checkpoint = _checkpoint(source)
    state = model.state_dict()
    architecture = model.architecture
    own = {name: tensor for name, tensor in state.items() if not _COMPUTED.fullmatch(name)}
    given = {name: tensor for name, tensor in checkpoint.state_dict.items() if not _COMPUTED.fullmatch(name)}
    first = f"backbone.{model.backbone.first_convolution}.weight"
    given, channels = with_channels(given, first, architecture.in_channels)
    if class_names is not None and len(class_names) != architecture.num_classes:
        raise ValueError(f"{len(class_names)} class names were given for a model of {architecture.num_classes} classes")
    missing = tuple(name for name in own if name not in given and not name.endswith(_COUNTER))
    unexpected = tuple(name for name in given if name not in own and not name.endswith(_COUNTER))
    _refuse_other_model(checkpoint, architecture, own, given, missing, unexpected)

    there = checkpoint.named_beside(class_names) if class_names is not None and class_rows == AUTO else None
    rows = _class_rows(class_names, architecture.num_classes, there, checkpoint, class_rows)
    values, reinitialised = {}, []
    for name, tensor in own.items():
        if name not in given:
            continue
        if rows is None or not is_class_head(name):
            values[name] = given[name]
        else:
            values[name] = with_rows(name, tensor, given[name], rows)
            if len(rows) < architecture.num_classes:
                reinitialised.append(name)
    model.load_state_dict(values, strict=False)
    untouched = len(reinitialised) if rows == [] else 0
    return LoadReport(
        source=checkpoint.source,
        loaded=len(values) - untouched,
        num_classes=architecture.num_classes,
        source_classes=checkpoint.architecture.num_classes,
        missing=missing,
        unexpected=unexpected,
        reinitialised=tuple(reinitialised),
        copied_rows=tuple(class_names[here] for here, _ in rows or ()) if class_names else (),
        by_position=rows is None and there is None and class_names is not None and class_rows == AUTO,
        channels=channels,
    )


def _checkpoint(source: str | Path | Mapping[str, Tensor] | Checkpoint) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, Mapping):
        return make_checkpoint(source, "a state dict", "state_dict")
    return read_checkpoint(source)


def _class_rows(
    names: Sequence[str] | None,
    num_classes: int,
    there: Sequence[str] | None,
    checkpoint: Checkpoint,
    choice: ClassRows,
) -> list[tuple[int, int]] | None:
    """Pairs of rows (here, there) to copy; None if class heads are loaded as they are."""
    if choice not in (options := get_args(ClassRows)):
        raise UserError(f"there is no init_classes={choice}: {nearest(choice, options)}use {', '.join(options)}")
    as_many = checkpoint.architecture.num_classes == num_classes
    if choice == NEW:
        return []
    if choice == BY_POSITION and not as_many:
        raise UserError(
            f"'{checkpoint.source}' has {checkpoint.architecture.num_classes} classes, not {num_classes}: their rows "
            f"do not fit, so use init_classes={AUTO}"
        )
    if names is None or there is None:
        return None if as_many else []
    matched = match_classes(names, there)
    if as_many and matched == list(range(num_classes)):
        return None
    return [(index, found) for index, found in enumerate(matched) if found is not None]


def _refuse_other_model(
    checkpoint: Checkpoint,
    architecture: Architecture,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    missing: Sequence[str],
    unexpected: Sequence[str],
) -> None:
    reason, num_points = None, checkpoint.architecture.decoder.num_points
    conflict = next((name for name in own if name in given and not _fits(name, own[name], given[name])), None)
    strange = [name for name in unexpected if not _is_further_layer(name, architecture.decoder.num_layers)]
    channels = checkpoint.architecture.in_channels
    if channels not in (architecture.in_channels, 3):
        raise UserError(
            f"'{checkpoint.source}' takes images of {channels} channels, and this model of {architecture.in_channels}: "
            f"set data.channels={channels}, or give a checkpoint of RGB"
        )
    if conflict is not None:
        reason = f"'{conflict}' is {list(given[conflict].shape)} there and {list(own[conflict].shape)} here"
    elif len(missing) > _HANDFUL:
        reason = f"it lacks {len(missing)} entries, such as '{missing[0]}'"
    elif len(strange) > _HANDFUL:
        reason = f"it has {len(strange)} entries more, such as '{strange[0]}'"
    elif _POINTS in checkpoint.state_dict and num_points != architecture.decoder.num_points:
        reason = f"{list(num_points)} sampling points there and {list(architecture.decoder.num_points)} here"
    if reason is None:
        return
    there, here = looks_like(checkpoint.architecture), looks_like(architecture)
    if there == here:
        raise UserError(
            f"'{checkpoint.source}' holds {there} of another shape than this model ({reason}): set model.architecture "
            "to what it was trained with, or give a checkpoint of this model"
        )
    raise UserError(
        f"'{checkpoint.source}' looks like {there}, but this model looks like {here} ({reason}): "
        f"{_set_model(checkpoint.architecture)}give a checkpoint of this model"
    )


def _set_model(architecture: Architecture) -> str:
    overrides = configuration_of(architecture)
    return "" if overrides is None else f"set {overrides}, or "


def _fits(name: str, own: Tensor, given: Tensor) -> bool:
    if is_class_head(name):
        return own.shape[1:] == given.shape[1:]
    return own.shape == given.shape


def _is_further_layer(name: str, decoder_layers: int) -> bool:
    """Whether this belongs to a decoder layer beyond those of the model: fewer layers can be used than were trained."""
    layer = _DECODER_LAYER.match(name)
    return layer is not None and int(layer[1]) >= decoder_layers


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
