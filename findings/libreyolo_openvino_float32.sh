#!/usr/bin/env bash
# LibreYOLO: an OpenVINO model that is exported in float32, and says so, has its weights in float16.
#
# Packages: libreyolo 1.6.0, openvino 2026.4.1, onnx 1.23.2, torch 2.14.1 (large: with CUDA some 5 GB), torchvision
#           0.29.1.
# Input:    an RT-DETRv2 with random weights, exported with half=False and with half=True.
# Expected: weights in float32 with half=False, in float16 with half=True.
# Seen:     float16 in both, and the same size of file, while metadata.yaml and the log say fp32 and fp16. OpenVINO's
#           save_model compresses unless it is told not to, and half=False leaves that to its default. The control is
#           the same model saved with compress_to_fp16=False.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 \
  openvino==2026.4.1 libreyolo==1.6.0
cd "$folder"
CUDA_VISIBLE_DEVICES="" "$folder/bin/python" -W ignore - <<'PYTHON'
import logging
from collections import Counter

import openvino
import torch
import yaml
from libreyolo import LibreRTDETRv2

logging.disable()
torch.manual_seed(0)
model = LibreRTDETRv2(size="r18", nb_classes=80, device="cpu")
core = openvino.Core()


def weight_types(path):
    large = [op for op in core.read_model(path).get_ops() if op.get_type_name() == "Constant" and op.data.size > 1000]
    return Counter(op.get_output_element_type(0).to_string() for op in large if op.data.dtype.kind == "f")


types = {}
for half in (False, True):
    model.export(format="openvino", output_path=f"half_{half}", half=half, dynamic=False, simplify=False, verbose=False)
    says = yaml.safe_load(open(f"half_{half}/metadata.yaml"))["precision"]
    types[half] = weight_types(f"half_{half}/model.xml")
    print(f"half={half}: metadata.yaml says {says}; types of the weights: {dict(types[half])}")
model.export(format="onnx", output_path="model.onnx", dynamic=False, simplify=False)
openvino.save_model(openvino.convert_model("model.onnx"), "control.xml", compress_to_fp16=False)
control = weight_types("control.xml")
print(f"control, saved by OpenVINO without compression: {dict(control)}")
assert set(control) == {"f32"}, "the control has changed"
assert set(types[True]) == set(types[False]) == {"f16"}, "the behaviour has changed"
PYTHON
