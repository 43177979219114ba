#!/usr/bin/env bash
# The files of other projects for benchmarks/exported.py, of the weights of one r18vd of ours (80 classes, 640 x 640).
#
#     python export.py checkpoint=CHECKPOINT format=huggingface output=r18vd_hf
#     python export.py checkpoint=CHECKPOINT format=reference output=rtdetrv2_r18vd_120e_coco.pth
#     bash benchmarks/exported_peers.sh r18vd_hf rtdetrv2_r18vd_120e_coco.pth OUTPUT
#
# LibreYOLO tells RT-DETRv2 from RT-DETR by that file name. Each project has an environment of its own in OUTPUT, with
# PyTorch in it (with CUDA some 5 GB each). As documented by each project; float32, batch 1, 640 x 640 where not said:
#
#     optimum_default.onnx        optimum 2.1.0, optimum-onnx 0.1.0, transformers 4.57.6; any batch and size
#     optimum.onnx                the same, all sizes fixed
#     optimum_slim.onnx           the same, and simplified by onnxslim 0.1.98
#     optimum_int8.onnx           optimum.onnx with weights and activations quantised on the fly, the one way that
#                                 optimum's command line has without data
#     transformers_openvino.xml   RTDetrV2ForObjectDetection converted by OpenVINO 2026.4.1 itself
#     libreyolo_default.onnx      libreyolo 1.6.0, any batch, simplified by onnxsim 0.8.1
#     libreyolo.onnx              the same, the batch fixed
#     libreyolo_openvino/         the same for OpenVINO (float16 weights, whatever is asked for)
#     libreyolo_openvino_int8/    the same, quantised by NNCF 3.4.0
#
# What they do not do: optimum's --optimize has no rules for RT-DETRv2; optimum-intel 2.2.0 does not export it, and
# 1.27.0 fails to, so for OpenVINO optimum's ONNX files are what there is. LibreYOLO quantises it for OpenVINO only, and
# calibrates with no image at all, as it hands two numbers to a function of one; that is put right below. The images for
# it are made up, so the quantised files are for timing only.
set -euo pipefail
huggingface="$(realpath "$1")" checkpoint="$(realpath "$2")"
mkdir -p "$3"
cd "$3"
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=""
common="numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 nncf==3.4.0"

python3 -m venv optimum
optimum/bin/pip install --quiet $common optimum==2.1.0 optimum-onnx==0.1.0 transformers==4.57.6 onnxslim==0.1.98
export_onnx() { # the name of the file, and options
  optimum/bin/optimum-cli export onnx --model "$huggingface" --task object-detection "${@:2}" "optimum_$1"
  mv "optimum_$1/model.onnx" "$1.onnx"
}
export_onnx optimum_default
export_onnx optimum_slim --no-dynamic-axes --batch_size 1 --height 640 --width 640 --slim
export_onnx optimum --no-dynamic-axes --batch_size 1 --height 640 --width 640
mkdir -p quantise && cp optimum.onnx quantise/model.onnx && cp optimum_optimum/config.json quantise/
optimum/bin/optimum-cli onnxruntime quantize --onnx_model quantise --avx512_vnni -o optimum_int8
mv optimum_int8/model_quantized.onnx optimum_int8.onnx
optimum/bin/python - "$huggingface" <<'PYTHON'
import sys

import openvino
import torch
from transformers import RTDetrV2ForObjectDetection

model = RTDetrV2ForObjectDetection.from_pretrained(sys.argv[1]).eval()
model.config.return_dict = False
forward = model.forward
model.forward = lambda pixel_values: forward(pixel_values)[:2]
converted = openvino.convert_model(model, example_input=torch.rand(1, 3, 640, 640), input=[1, 3, 640, 640])
openvino.save_model(converted, "transformers_openvino.xml", compress_to_fp16=False)
PYTHON

python3 -m venv libreyolo
libreyolo/bin/pip install --quiet $common libreyolo==1.6.0 onnxsim==0.8.1
libreyolo/bin/python - "$checkpoint" <<'PYTHON'
import sys
from pathlib import Path

import cv2
import numpy as np
from libreyolo import LibreYOLO
from libreyolo.models.rtdetr import model as rtdetr
from libreyolo.models.rtdetr.utils import preprocess_numpy

model = LibreYOLO(sys.argv[1], device="cpu")
model.export(format="onnx", output_path="libreyolo_default.onnx")
model.export(format="onnx", output_path="libreyolo.onnx", dynamic=False)
model.export(format="openvino", output_path="libreyolo_openvino", dynamic=False)

images = Path("calibration/images")
images.mkdir(parents=True, exist_ok=True)
generator = np.random.default_rng(0)
for number in range(16):
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(images / f"{number}.jpg"), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
names = "".join(f"  {index}: class {index}\n" for index in range(80))
data = Path("calibration/data.yaml")
data.write_text(f"path: {data.parent.resolve()}\ntrain: images\nval: images\nnc: 80\nnames:\n{names}")
rtdetr.LibreRTDETR._get_preprocess_numpy = lambda self: (
    lambda image, size: (preprocess_numpy(image, size[0])[0][0], 1.0)
)
model.export(format="openvino", output_path="libreyolo_openvino_int8", dynamic=False, int8=True, data=str(data))
PYTHON
