"""The other projects of `benchmarks.accuracy`.

- ``LibreYolo``: LibreYOLO's rtdetrv2-r18. ``pretrained=False`` is what it calls from scratch; without, it freezes the
  random stem. It predicts at 640 unless the size is given again, and stops after 50 epochs without a higher AP.
- ``Authors``: ``tools/train.py`` of lyuwenyu/RT-DETR with the configuration of r18vd, written as their README says for
  other data. The epoch in which augmentation stops is in proportion to the length. Only the last checkpoint and the
  best are written, as one an epoch would fill the disk.
"""

# ruff: noqa: D102 (the base class says it)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.accuracy.contenders import (
    Command,
    Contender,
    Training,
    call,
    commit,
    from_anywhere,
    json_lines,
    packages,
)
from benchmarks.accuracy.sets import DataSet, average_precision

MAX_DETECTIONS = 300

_LIBREYOLO = """
import json, sys
from libreyolo.models.rtdetrv2.model import LibreRTDETRv2
settings = json.loads(sys.argv[1])
model = LibreRTDETRv2(None, size="r18", nb_classes=settings.pop("classes"), device="cpu")
model.train(pretrained=False, device="cpu", name="run", exist_ok=True, **settings)
"""

_LIBREYOLO_DETECTIONS = """
import json, sys
from libreyolo import LibreYOLO
checkpoint, size, most, categories, images, results = json.loads(sys.argv[1])
model = LibreYOLO(checkpoint, device="cpu")
found = []
for identity, path in images:
    boxes = model.predict(path, conf=0.0, imgsz=size, max_det=most).boxes
    for (left, top, right, bottom), score, label in zip(boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist()):
        found.append({"image_id": identity, "category_id": categories[int(label)], "score": score,
                      "bbox": [left, top, right - left, bottom - top]})
with open(results, "w") as file:
    json.dump(found, file)
"""


class LibreYolo(Contender):
    """rtdetrv2-r18 of LibreYOLO.

    Args:
        python: Python of an environment that has ``libreyolo``.
    """

    name = "libreyolo"
    models = ("r18vd",)

    def __init__(self, python: str) -> None:
        self.python = from_anywhere(python)

    def command(self, training: Training) -> Command:
        train, val = training.data.train, training.data.val
        names = list(train.classes.values())
        described = {
            "path": str(training.folder),
            "train": str(train.images),
            "val": str(val.images),
            "annotations": {"train": str(train.annotations), "val": str(val.annotations)},
            "nc": len(names),
            "names": names,
        }
        (training.folder / "data.yaml").write_text(json.dumps(described))  # YAML too
        settings = {
            "classes": len(names),
            "data": str(training.folder / "data.yaml"),
            "epochs": training.epochs,
            "batch": training.batch,
            "imgsz": training.size,
            "seed": training.seed,
            "project": str(training.folder),
        }
        return Command([self.python, "-c", _LIBREYOLO, json.dumps(settings)], training.folder)

    def validations(self, training: Training) -> list[tuple[int, float]]:
        rows = json_lines(training.folder / "run" / "metrics.jsonl")
        return [(row["epoch"], 100 * max(row["metrics/mAP50-95"], 0.0)) for row in rows if row["validated"]]

    def final(self, training: Training) -> float:
        val, results = training.data.val, training.folder / "detections.json"
        images = [(image["id"], str(val.images / image["file_name"])) for image in val.content["images"]]
        checkpoint = str(training.folder / "run" / "weights" / "best.pt")
        categories = _ids_in_validation(training.data)
        given = [checkpoint, training.size, MAX_DETECTIONS, categories, images, str(results)]
        call([self.python, "-c", _LIBREYOLO_DETECTIONS, json.dumps(given)], training.folder)
        return average_precision(val.annotations, json.loads(results.read_text()))

    def versions(self) -> dict[str, str]:
        return packages(self.python, "libreyolo", "torch", "pycocotools", "faster-coco-eval")


_AUTHORS_DETECTIONS = """
import json, sys
import torch
from src.core import YAMLConfig
configuration, checkpoint, results = sys.argv[1:]
config = YAMLConfig(configuration)
config.model.load_state_dict(torch.load(checkpoint, map_location="cpu")["ema"]["module"])
model, found = config.model.eval(), []
with torch.no_grad():
    for images, targets in config.val_dataloader:
        sizes = torch.stack([target["orig_size"] for target in targets])
        for target, result in zip(targets, config.postprocessor(model(images), sizes)):
            rows = zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist())
            for (left, top, right, bottom), score, label in rows:
                found.append({"image_id": target["image_id"].item(), "category_id": label, "score": score,
                              "bbox": [left, top, right - left, bottom - top]})
with open(results, "w") as file:
    json.dump(found, file)
"""


class Authors(Contender):
    """``rtdetrv2_pytorch`` of the authors.

    Args:
        checkout: that folder in a checkout of lyuwenyu/RT-DETR, or the checkout.
        python: Python of an environment that has what their ``requirements.txt`` names.
    """

    name = "authors"
    models = ("r18vd",)

    def __init__(self, checkout: Path, python: str) -> None:
        within = checkout / "rtdetrv2_pytorch"
        self.checkout = (within if within.is_dir() else checkout).resolve()
        self.python = from_anywhere(python)

    def command(self, training: Training) -> Command:
        configuration = training.folder / "config.yml"
        configuration.write_text(json.dumps(authors_configuration(self.checkout, training), indent=1))  # YAML too
        arguments = ["-c", str(configuration), "-d", "cpu", "--seed", str(training.seed)]
        arguments += ["--output-dir", str(training.folder / "run")]
        return Command([self.python, "tools/train.py", *arguments], self.checkout)

    def validations(self, training: Training) -> list[tuple[int, float]]:
        rows = json_lines(training.folder / "run" / "log.txt")
        return [(row["epoch"] + 1, 100 * max(row["test_coco_eval_bbox"][0], 0.0)) for row in rows]

    def final(self, training: Training) -> float:
        configuration, checkpoint, results = (
            str(training.folder / name) for name in ("config.yml", "run/best.pth", "detections.json")
        )
        python_path = {"PYTHONPATH": str(self.checkout)}
        program = [self.python, "-c", _AUTHORS_DETECTIONS, configuration, checkpoint, results]
        call(program, self.checkout, python_path)
        return average_precision(training.data.val.annotations, json.loads(Path(results).read_text()))

    def versions(self) -> dict[str, str]:
        return {"commit": commit(self.checkout), **packages(self.python, "torch", "torchvision", "faster-coco-eval")}


def authors_configuration(checkout: Path, training: Training) -> dict[str, Any]:
    """The authors' configuration of r18vd for another data set, image size, batch size and length.

    Args:
        checkout: their ``rtdetrv2_pytorch``.
        training: the run.
    """
    import yaml

    folder = checkout / "configs" / "rtdetrv2"
    base = folder / "rtdetrv2_r18vd_120e_coco.yml"
    model = yaml.safe_load(base.read_text())
    loaders = yaml.safe_load((folder / "include" / "dataloader.yml").read_text())
    stop = model["train_dataloader"]["dataset"]["transforms"]["policy"]["epoch"]
    configured: dict[str, Any] = {
        "__include__": [str(base)],
        "epoches": training.epochs,
        "num_classes": max(training.data.train.classes) + 1,  # labels are the ids of the categories
        "remap_mscoco_category": False,
        "eval_spatial_size": [training.size, training.size],
        "checkpoint_freq": training.epochs + 1,
        "PResNet": {"pretrained": False},
    }
    for name, part in (("train_dataloader", training.data.train), ("val_dataloader", training.data.val)):
        operations = loaders[name]["dataset"]["transforms"]["ops"]
        for operation in operations:
            if operation["type"] == "Resize":
                operation["size"] = [training.size, training.size]
        transforms: dict[str, Any] = {"ops": operations}
        data = {"img_folder": f"{part.images}/", "ann_file": str(part.annotations), "transforms": transforms}
        configured[name] = {"dataset": data}
        if name == "train_dataloader":
            transforms["policy"] = {"epoch": round(training.epochs * stop / model["epoches"])}
            configured[name]["total_batch_size"] = training.batch
    return configured


def _ids_in_validation(data: DataSet) -> list[int]:
    """The category id in the validation file of each class of the training file, by name."""
    ids = {name: identity for identity, name in data.val.classes.items()}
    return [ids[name] for name in data.train.classes.values()]
