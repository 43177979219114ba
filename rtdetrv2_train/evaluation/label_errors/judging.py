"""How likely each label is to be wrong, and each detection without a label to be an object.

Nobody has told which labels are wrong, so errors are made on purpose: boxes are moved, renamed and put where nothing
is. A regression learns what the detector makes of these and of the labels as they are. It knows how far this detector
can be trusted on this set: what it often misses, mixes up or sees without reason is no sign of an error. An object
without a label looks like a labelled one whose label is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.evaluation.label_errors import made_up, missing
from rtdetrv2_train.evaluation.label_errors.evidence import SAME_OBJECT, Evidence, Floats, Ints, Labels, Rivals
from rtdetrv2_train.evaluation.label_errors.regression import SoftmaxRegression

RIGHT, NO_OBJECT, WRONG_CLASS, BADLY_PLACED = range(4)
SHARES = {NO_OBJECT: 0.005, WRONG_CLASS: 0.01, BADLY_PLACED: 0.015}
"""Share of labels that are expected to be wrong in each way before anything is known of a set: 5 % with
:data:`SHARE_MISSING`. Nobody draws a box around nothing as easily as an object is overlooked."""
SHARE_MISSING = 0.02
_LEAST_MADE_UP, _MOST_MADE_UP = 10_000, 20_000  # errors of each kind, before the impossible ones are left out
_SEED = 0
_FEW = 10  # labels that the median of all classes counts as in that of one
_ROUNDS = 2  # the second leaves out what the first found wrong among the labels taken for right ones


def judge_labels(boxes: EvaluatedBoxes, rivals: Rivals, usual: Floats, labels: Labels, evidence: Evidence) -> Floats:
    """The probabilities of being right, and of each kind of error, ``[N, 4]``.

    Args:
        boxes: labels and detections.
        rivals: see `Rivals`.
        usual: ``[K]``, see :func:`usual_odds`.
        labels: N of the set's own, to be judged.
        evidence: about them.
    """
    features = [evidence.features(usual[labels.classes])]
    number = len(labels.images)
    kinds, weights = [np.full(number, RIGHT)], [np.ones(number)]
    for kind, made in _made_up(labels, evidence, boxes).items():
        if len(made.images):
            features.append(Evidence.about(made, boxes, rivals).features(usual[made.classes]))
            kinds.append(np.full(len(made.images), kind))
            weights.append(np.full(len(made.images), SHARES[kind] * number / len(made.images)))
    return _fitted(features, kinds, weights, len(SHARES) + 1)


@dataclass(frozen=True)
class MissingJudgement:
    """What is thought of N detections without a label.

    Attributes:
        found: int64 ``[N]``, the detections, each the best of its object.
        probabilities: ``[N]``, of being an object that a label is missing for.
    """

    found: Ints
    probabilities: Floats


def judge_unlabelled(
    boxes: EvaluatedBoxes, rivals: Rivals, usual: Floats, in_crowd: NDArray[np.bool_], num_labels: int
) -> MissingJudgement:
    """Judge detections that overlap no label.

    Args:
        boxes: labels and detections.
        rivals: see `Rivals`.
        usual: ``[K]``, see :func:`usual_odds`.
        in_crowd: ``[D]``, detections that need no label.
        num_labels: of the set, those in crowd regions left out.
    """
    heads = missing.Heads.of(boxes)
    labelled = rivals.first[heads.found] >= SAME_OBJECT
    others = np.where(labelled, rivals.second[heads.found], rivals.first[heads.found])
    features = missing.features(heads, others, boxes, usual)
    same_class = boxes.found_classes[heads.found] == boxes.truth_classes[rivals.label[heads.found]]
    candidates, objects = ~labelled & ~in_crowd[heads.found], labelled & same_class
    if not candidates.any() or not objects.any():
        return MissingJudgement(heads.found[:0], np.zeros(0))
    weight = SHARE_MISSING * num_labels / objects.sum()
    probabilities = _fitted(
        [features[candidates], features[objects]],
        [np.zeros(candidates.sum(), np.int64), np.ones(objects.sum(), np.int64)],
        [np.ones(candidates.sum()), np.full(objects.sum(), weight)],
        2,
    )
    return MissingJudgement(heads.found[candidates], probabilities[:, 1])


def usual_odds(odds: Floats, classes: Ints, num_classes: int) -> Floats:
    """The median for each class, drawn to that of all where a class has few labels, ``[K]``.

    Args:
        odds: ``[N]``, log-odds of the best score at each label.
        classes: ``[N]``, of the labels.
        num_classes: K.
    """
    overall = float(np.median(odds)) if len(odds) else 0.0
    usual = np.full(num_classes, overall)
    for k in np.unique(classes):
        of_class = odds[classes == k]
        usual[k] = (len(of_class) * np.median(of_class) + _FEW * overall) / (len(of_class) + _FEW)
    return usual


def _made_up(labels: Labels, evidence: Evidence, boxes: EvaluatedBoxes) -> dict[int, Labels]:
    """Errors of each kind made of the labels: of some where there are many, several of each where there are few."""
    generator = np.random.default_rng(_SEED)
    number = min(max(len(labels.images), _LEAST_MADE_UP), _MOST_MADE_UP)
    some = np.resize(generator.permutation(len(labels.images)), number)
    right = labels.where(some)
    made = {NO_OBJECT: made_up.misplaced(right, boxes, generator), BADLY_PLACED: made_up.moved(right, generator)}
    if (num_classes := len(boxes.class_names)) > 1:
        rivals = np.append(boxes.found_classes, -1)[evidence.other[some]]
        made[WRONG_CLASS] = made_up.renamed(right, rivals, num_classes, generator)
    return made


def _fitted(features: list[Floats], kinds: list[Ints], weights: list[Floats], num_kinds: int) -> Floats:
    """Probabilities of the kinds for the first of several groups, which is taken to be of kind 0 almost always."""
    everything, of_kinds, counted = np.concatenate(features), np.concatenate(kinds), np.concatenate(weights)
    for _ in range(_ROUNDS):
        model = SoftmaxRegression.fit(everything, of_kinds, counted, num_kinds)
        probabilities = model.probabilities(features[0])
        counted[: len(features[0])] = probabilities[:, 0]
    return probabilities
