"""The card beside an exported model: what its file does not say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.files import read_json, save_json

Graph = Literal["raw", "end_to_end"]
Precision = Literal["float32", "float16", "int8"]

_SUFFIX = ".card.json"


@dataclass(frozen=True)
class ExportCard:
    """What an exported model is, takes and gives.

    Attributes:
        format: such as ``onnx``.
        graph: ``raw``: images in [0, 1] to logits and boxes; ``end_to_end``: bytes of images of any size to detections.
        precision: of weights and computations.
        sampling: of the decoder: ``default`` (bilinear) or ``discrete``.
        decoder_layers: number of decoder layers.
        num_queries: queries, the most objects of an image.
        batch: images that a call takes; None: any number.
        fixed_size: whether the model's input is of ``image_size`` alone; else of any multiples of 32.
        image_size: (height, width) of the input in pixels that images are resized to.
        letterbox: whether images keep their aspect ratio, with a black margin at the right or below.
        pixel_range: values of images of more than 8 bits that are black and white; None: those of all of 16 bits.
        threshold: score that detections should have.
        class_names: in the order of the class indices.
        category_ids: the annotation file's id of each class; empty where not known.
        input_names: of the graph, in their order.
        output_names: likewise.
        versions: of the packages that wrote the file.
        verified: what was compared with PyTorch, and how it came out.
        channels: of the images; 3 is RGB.
    """

    format: str
    graph: Graph
    precision: Precision
    sampling: str
    decoder_layers: int
    num_queries: int
    batch: int | None
    fixed_size: bool
    image_size: tuple[int, int]
    letterbox: bool
    pixel_range: tuple[float, float] | None
    threshold: float
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    verified: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 3

    def save(self, model_file: Path) -> Path:
        """Write the card beside a model's file or folder."""
        return save_json(card_path(model_file), asdict(self))

    @classmethod
    def read(cls, model_file: Path) -> ExportCard:
        """The card beside a model's file or folder.

        Raises:
            UserError: if it is missing or incomplete.
        """
        path = card_path(model_file)
        if not path.exists():
            raise UserError(
                f"'{path}' is missing, which says what '{model_file.name}' takes and gives: copy it along with that"
            )
        values = {"channels": 3, **read_json(path)}  # which older cards do not say
        if missing := [f.name for f in fields(cls) if f.name not in values]:
            raise UserError(f"'{path}' lacks '{missing[0]}': export the model again")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{f.name: lists.get(f.name, values[f.name]) for f in fields(cls)})


def card_path(model_file: Path) -> Path:
    """Where the card of a model's file or folder lies."""
    return model_file.with_name(model_file.name.split(".")[0] + _SUFFIX)


def exported_file(source: str | Path, suffixes: Collection[str]) -> Path | None:
    """The file of an exported model.

    Args:
        source: the file, or the folder that it was exported to.
        suffixes: of such files, with their dot.

    Returns:
        None where a path is neither.

    Raises:
        UserError: if the folder holds several.
    """
    path = Path(source)
    if path.suffix.lower() in suffixes and path.exists():
        return path
    if not path.is_dir():
        return None
    stems = [card.name[: -len(_SUFFIX)] for card in path.glob(f"*{_SUFFIX}")]
    files = sorted(file for file in path.iterdir() if file.stem in stems and file.suffix.lower() in suffixes)
    if len(files) > 1:
        raise UserError(f"'{path}' holds several exported models: give one of {', '.join(f.name for f in files)}")
    return files[0] if files else None
