"""Classes of annotation files and models, and matching those of two sources by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rtdetrv2_train.errors import UserError

_LISTED = 8
# Darknet's names of COCO classes, which many files and models have, blanks left out.
_OTHER_NAMES = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


@dataclass(frozen=True)
class Classes:
    """The classes of an annotation file or a model, in the order of the class indices.

    Attributes:
        names: of the classes.
        ids: the category id of each, ascending.
        source: where they come from, for messages.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    source: str

    def listed(self, labels: Sequence[int]) -> str:
        """Names and ids of some of the classes, not too many, for messages."""
        named = ", ".join(f"'{self.names[label]}' (id {self.ids[label]})" for label in labels[:_LISTED])
        return named if len(labels) <= _LISTED else f"{named} and {len(labels) - _LISTED} more"


def match_classes(here: Sequence[str], there: Sequence[str]) -> list[int | None]:
    """For each class here the index of the same class there; None where there is no such class.

    Equal lists match as they stand. Else a class is the one of exactly its name, and several of one name match in
    their order. What is left over matches names that differ in case and blanks only, unless several do.

    Raises:
        UserError: if a name stands for several classes, and not for as many on both sides.
    """
    counts, others = Counter(here), Counter(there)
    for name in counts.keys() & others.keys():
        if counts[name] != others[name]:
            raise UserError(
                f"'{name}' is the name of {counts[name]} classes here and of {others[name]} there: give every class a "
                "name of its own"
            )
    places: dict[str, list[int]] = {}
    for index, name in enumerate(there):
        places.setdefault(name, []).append(index)
    matched = [places[name].pop(0) if name in places else None for name in here]
    left_here = [index for index, found in enumerate(matched) if found is None]
    left_there = [index for of_name in places.values() for index in of_name]
    folded_here = Counter(_folded(here[index]) for index in left_here)
    folded_there = Counter(_folded(there[index]) for index in left_there)
    index_there = {_folded(there[index]): index for index in left_there}
    for index in left_here:
        folded = _folded(here[index])
        if folded_here[folded] == folded_there[folded] == 1:
            matched[index] = index_there[folded]
    return matched


def usual_ids(names: Sequence[str]) -> tuple[int, ...]:
    """Category ids of classes that come without: COCO's for its 80 in their order, else from 1 on."""
    if len(names) == len(COCO) and match_classes(names, tuple(COCO.values())) == list(range(len(COCO))):
        return tuple(COCO)
    return tuple(range(1, len(names) + 1))


def _folded(name: str) -> str:
    plain = "".join(name.split()).casefold()
    return _OTHER_NAMES.get(plain, plain)


COCO = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
"""Id and name of each category of COCO, in the order of the published models' class indices."""
