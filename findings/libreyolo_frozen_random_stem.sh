#!/usr/bin/env bash
# LibreYOLO: of a model that is trained from random weights, the first layers stay random.
#
# Packages: libreyolo 1.6.0, torch 2.14.1 (large: with CUDA some 5 GB), torchvision 0.29.1, numpy 2.4.6.
# Input:    an RT-DETRv2 (r18) that is built without weights, trained for an epoch of two steps on made-up images in
#           YOLO's format.
# Expected: each parameter is trained: there are no weights to keep, nothing is said about frozen layers, and freeze is
#           None in the configuration of the run.
# Seen:     the stem of the backbone (3 convolutions and their normalisation, 9 tensors) has requires_grad False and
#           is after training what it was before: random. The control is train(pretrained=False), which builds the model
#           anew, from random weights too, and trains all of it. pretrained is described as "Use pretrained weights if
#           available": here none are.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 libreyolo==1.6.0
cd "$folder"
TMPDIR="$folder" CUDA_VISIBLE_DEVICES="" "$folder/bin/python" -W ignore - <<'PYTHON'
import logging
from pathlib import Path

import numpy as np
import torch
from libreyolo import LibreRTDETRv2
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


def built(seed):
    torch.manual_seed(seed)
    return LibreRTDETRv2(size="r18", nb_classes=1, device="cpu")


class Start:
    """What the parameters are when training starts."""

    def __init__(self, model):
        self.model = model

    def on_train_start(self, event):
        self.freeze = event.config["freeze"]
        self.parameters = {name: value.detach().clone() for name, value in self.model.model.named_parameters()}


def trained(name, **options):
    model = built(0)
    start = Start(model)
    model.train(data="data.yaml", epochs=1, batch=4, imgsz=160, workers=0, device="cpu", project="runs", name=name,
                val=False, callbacks=start, **options)
    after = dict(model.model.named_parameters())
    frozen = [name for name, value in after.items() if not value.requires_grad]
    same = [name for name, value in after.items() if torch.equal(value, start.parameters[name])]
    print(f"{name}: freeze={start.freeze}; of {len(after)} parameters {len(frozen)} have requires_grad False, and "
          f"{len(same)} are after training what they were before")
    assert start.freeze is None, "freeze has changed"
    return frozen, same


first, second = (dict(built(seed).model.named_parameters()) for seed in (1, 2))
stem = [name for name in first if name.startswith("backbone.conv1.")]
convolutions = [name for name in stem if first[name].ndim == 4]
random = [name for name in convolutions if not torch.equal(first[name], second[name])]
print(f"of the {len(convolutions)} convolutions of the stem {len(random)} differ between two models as built: random")
assert random == convolutions and len(convolutions) == 3, "the stem has changed"
control = trained("pretrained=False", pretrained=False)
frozen, same = trained("default")
print(*frozen, sep="\n")
assert control == ([], []), "the control has changed"
assert frozen == same == stem and len(stem) == 9, "the behaviour has changed"
PYTHON
