#!/usr/bin/env bash
# optimum: an RT-DETRv2 exported to ONNX for images of 256 x 256 takes images of 320 x 320 only.
#
# Packages: optimum-onnx 0.1.0, optimum 2.1.0, transformers 4.57.6, torch 2.14.1 (large: with CUDA some 5 GB),
#           torchvision 0.29.1.
# Input:    a small random RTDetrV2ForObjectDetection of 300 queries, which predicts on images of 256 x 256 in PyTorch;
#           exported with --no-dynamic-axes --height 256 --width 256, and with 384.
# Expected: a file for the size asked for, or an error.
# Seen:     384 x 384 as asked, but 320 x 320 instead of 256 x 256, with a warning among many and exit status 0. The
#           number of queries, rounded up to a multiple of 32, is taken for the smallest side of an image; the model
#           needs that many positions in its feature maps, of which 256 x 256 pixels have 1344.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 torchvision==0.29.1 \
  optimum==2.1.0 optimum-onnx==0.1.0 transformers==4.57.6 onnx==1.23.2 onnxruntime==1.32.0
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error CUDA_VISIBLE_DEVICES=""
"$folder/bin/python" -W ignore - "$folder/model" <<'PYTHON'
import sys

import torch
from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

torch.manual_seed(0)
backbone = RTDetrResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1], layer_type="basic",
    out_features=["stage2", "stage3", "stage4"],
)
config = RTDetrV2Config(
    backbone_config=backbone, encoder_in_channels=[32, 32, 32], encoder_hidden_dim=32, encoder_ffn_dim=64,
    encoder_attention_heads=4, d_model=32, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64,
    decoder_attention_heads=4, decoder_layers=2, num_queries=300, num_labels=3,
)
model = RTDetrV2ForObjectDetection(config).eval()
with torch.inference_mode():
    boxes = model(torch.rand(1, 3, 256, 256)).pred_boxes
print(f"PyTorch, an image of 256 x 256: {boxes.shape[1]} boxes")
model.save_pretrained(sys.argv[1])
RTDetrImageProcessor().save_pretrained(sys.argv[1])
PYTHON
for side in 384 256; do
  "$folder/bin/optimum-cli" export onnx --model "$folder/model" --task object-detection --batch_size 1 \
    --no-dynamic-axes --height "$side" --width "$side" "$folder/$side" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
done
"$folder/bin/python" - "$folder" <<'PYTHON'
import sys

import onnxruntime

taken = {}
for side in (384, 256):
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/{side}/model.onnx")
    taken[side] = session.get_inputs()[0].shape[2:]
    print(f"exported for {side} x {side}: the file takes {' x '.join(map(str, taken[side]))}")
assert taken[384] == [384, 384], "the control has changed"
assert taken[256] == [320, 320], "the behaviour has changed"
PYTHON
