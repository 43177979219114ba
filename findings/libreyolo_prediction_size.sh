#!/usr/bin/env bash
# LibreYOLO: a model trained on square images predicts at another size than it was trained and validated at.
#
# Packages: libreyolo 1.6.0, torch 2.14.1 (large: with CUDA some 5 GB), torchvision 0.29.1, numpy 2.4.6.
# Input:    an RT-DETRv2 (r18) that is trained with imgsz=160 for an epoch of two steps, on made-up images of 160 x 160
#           in YOLO's format. Then predict, of the trained model and of its checkpoint. A hook of PyTorch sees the sizes
#           that the network gets.
# Expected: 160 x 160: the checkpoint says imgsz 160, validation after each epoch (which chooses best.pt) runs at that
#           size, and predict's imgsz is described as an override of the model's default.
# Seen:     640 x 640, the default of the architecture, unless imgsz is given again. A YOLOv9 (t) that is trained with
#           imgsz=160 does the same. The controls are predict with imgsz=160, and the same YOLOv9 trained with
#           imgsz=(160, 192): sizes that are not square are kept.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 libreyolo==1.6.0
cd "$folder"
TMPDIR="$folder" CUDA_VISIBLE_DEVICES="" "$folder/bin/python" -W ignore - <<'PYTHON'
import contextlib
import io
import logging
from pathlib import Path

import numpy as np
import torch
from libreyolo import LibreRTDETRv2, LibreYOLO, LibreYOLO9
from PIL import Image

logging.disable()
for part in ("train", "val"):
    Path("images", part).mkdir(parents=True)
    Path("labels", part).mkdir(parents=True)
    for number in range(8):
        pixels = np.zeros((160, 160, 3), np.uint8)
        pixels[40:120, 8 * number : 8 * number + 80] = (230, 40, 40)
        Image.fromarray(pixels).save(f"images/{part}/{number}.png")
        Path(f"labels/{part}/{number}.txt").write_text(f"0 {(8 * number + 40) / 160} 0.5 0.5 0.5\n")
Path("data.yaml").write_text(f"path: {Path.cwd()}\ntrain: images/train\nval: images/val\nnc: 1\nnames: [square]\n")


def sizes(model, action):
    seen = {}

    def see(module, arguments):
        seen.setdefault("training" if module.training else "not training", set()).add(tuple(arguments[0].shape[2:]))

    hook = model.model.register_forward_pre_hook(see)
    with contextlib.redirect_stdout(io.StringIO()):
        action()
    hook.remove()
    return seen


def trained(model, name, size, default):
    options = {"epochs": 1, "batch": 4, "workers": 0, "device": "cpu", "project": "runs", "name": name}
    training = sizes(model, lambda: model.train(data="data.yaml", imgsz=size, **options))
    side = size if isinstance(size, tuple) else (size, size)
    assert training == {"training": {side}, "not training": {side}}, f"training has changed: {training}"
    path = f"runs/{name}/weights/best.pt"
    says = torch.load(path, map_location="cpu", weights_only=False)["imgsz"]
    print(f"{name}: trained and validated at {side}, the checkpoint says imgsz {says}")
    for title, which in (("the trained model", model), ("its checkpoint", LibreYOLO(path, device="cpu"))):
        alone = sizes(which, lambda: which.predict("images/val/0.png"))["not training"]
        given = sizes(which, lambda: which.predict("images/val/0.png", imgsz=size))["not training"]
        print(f"  predict of {title}: {alone}; with imgsz={size}: {given}")
        assert given == {side}, "the control has changed"
        assert alone == {default}, "the behaviour has changed"


trained(LibreRTDETRv2(size="r18", nb_classes=1, device="cpu"), "rtdetrv2-r18", 160, (640, 640))
trained(LibreYOLO9(None, size="t", nb_classes=1, device="cpu"), "yolo9-t", 160, (640, 640))
trained(LibreYOLO9(None, size="t", nb_classes=1, device="cpu"), "yolo9-t-control", (160, 192), (160, 192))
PYTHON
