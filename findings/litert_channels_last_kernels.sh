#!/usr/bin/env bash
# litert-torch: of a model whose kernels are channels-last, one kernel is converted in the place of another.
#
# Packages: litert-torch 0.10.0, ai-edge-litert 2.3.0, torch 2.14.1 (large: with CUDA some 7 GB), numpy 2.4.6.
# Input:    six convolutions of one shape, in a row; the same model once more, to(memory_format=torch.channels_last),
#           which PyTorch recommends for speed and which changes no value.
# Expected: two LiteRT models that compute the same as PyTorch.
# Seen:     no error, and the second model computes something else. The converter makes a contiguous copy of each
#           kernel, which it knows by its address, and frees it. The next copy of that shape may get the same address
#           and counts as seen before. Known as google-ai-edge/litert-torch#1238 for constants that are
#           views. The controls are the first model, and one channels-last convolution alone.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 ai-edge-litert==2.3.0 litert-torch==0.10.0
cd "$folder"
CUDA_VISIBLE_DEVICES="" LITERT_TORCH_SHOW_PROGRESS=0 "$folder/bin/python" -W ignore - <<'PYTHON'
import sys

import litert_torch
import numpy as np
import torch

torch.manual_seed(0)
image = torch.rand(1, 16, 12, 14)
differences = {}
for count, layout in ((1, "channels_last"), (6, "contiguous_format"), (6, "channels_last")):
    model = torch.nn.Sequential(*[torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(count)]).eval()
    with torch.no_grad():
        expected = model(image).numpy()
    model = model.to(memory_format=getattr(torch, layout))
    with torch.no_grad():
        assert np.allclose(model(image).numpy(), expected, atol=1e-5), "the layout changes what PyTorch computes"
    found = litert_torch.convert(model, (image,))(image)
    differences[count, layout] = float(np.abs(found - expected).max()), float(np.abs(expected).max())
for (count, layout), values in differences.items():
    name = f"kernels {count}, {layout}:"
    print(f"{name:30} greatest difference {values[0]:.7f}, greatest value {values[1]:.7f}")
wrong = differences.pop((6, "channels_last"))
surprise = max(value for value, _ in differences.values()) < 1e-5 and wrong[0] > 0.1 * wrong[1]
print("as described" if surprise else "changed")
sys.exit(0 if surprise else 1)
PYTHON
