"""Training on a set, by the product's command, and what the run finds in images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rtdetrv2_train.commands.found_objects import find_objects
from rtdetrv2_train.data.index import load_annotations
from rtdetrv2_train.evaluation.analysis.boxes import EvaluatedBoxes
from rtdetrv2_train.inference.loading import load_detector

_ROOT = Path(__file__).resolve().parents[2]
_SHORT_RUN = (
    *("trainer=cpu", "model=nano", "model.image_size=[160,160]", "model.architecture.decoder.num_queries=100"),
    *("data.num_workers=0", "data.cache=ram", "~callbacks.pictures", "~callbacks.curves"),
)


def found_by_run(
    train: Path, inspected: Path, images: Path, val: tuple[Path, Path], run: Path, epochs: int, overrides: Sequence[str]
) -> EvaluatedBoxes:
    """Train on some labels, unless that has been done, and detect objects in the images of others.

    Args:
        train: annotation file to train on.
        inspected: annotation file whose images are looked at.
        images: folder of the images of both.
        val: annotation file and images of the validation set.
        run: folder of the run.
        epochs: of the run.
        overrides: of its configuration.
    """
    if not (run / "metrics.json").exists():
        command = [
            *(
                sys.executable,
                str(_ROOT / "train.py"),
                *_SHORT_RUN,
                f"run_folder={run}",
                f"trainer.max_epochs={epochs}",
            ),
            *("data.root=/", f"data.train.annotations={train}", f"data.train.images={images}"),
            *(f"data.val.annotations={val[0]}", f"data.val.images={val[1]}", *overrides),
        ]
        run.parent.mkdir(parents=True, exist_ok=True)
        with run.with_suffix(".txt").open("wb") as output:
            environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
            subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=True)
    table = load_annotations(inspected, images)
    return find_objects(load_detector(run), table, run, run.with_name(f"{run.name}_found")).boxes


def halves(annotations: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """Write the annotations of each half of the images, drawn at random."""
    content = json.loads(annotations.read_text())
    order = np.random.default_rng(seed).permutation([image["id"] for image in content["images"]])
    paths = []
    for half in (0, 1):
        own = set(order[half::2].tolist())
        part = {
            **content,
            "images": [image for image in content["images"] if image["id"] in own],
            "annotations": [entry for entry in content["annotations"] if entry["image_id"] in own],
        }
        paths.append(folder / f"half_{half}.json")
        paths[-1].write_text(json.dumps(part))
    return paths[0], paths[1]


def joined(parts: Sequence[EvaluatedBoxes]) -> EvaluatedBoxes:
    """Labels and detections of several parts of a set as those of the whole."""
    ids = np.unique(np.concatenate([part.image_ids for part in parts]))
    places = [np.searchsorted(ids, part.image_ids) for part in parts]
    columns = ("truth_classes", "truth_boxes", "truth_crowd", "found_classes", "found_boxes", "found_scores")
    return EvaluatedBoxes(
        image_ids=ids,
        class_names=parts[0].class_names,
        truth_images=np.concatenate([own[part.truth_images] for own, part in zip(places, parts, strict=True)]),
        found_images=np.concatenate([own[part.found_images] for own, part in zip(places, parts, strict=True)]),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
    )
