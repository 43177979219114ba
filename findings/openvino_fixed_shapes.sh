#!/usr/bin/env bash
# OpenVINO: a program of torch.export with fixed shapes becomes a model for any shape, which computes something else.
#
# Packages: openvino 2026.4.1, torch 2.14.1 (large: with CUDA some 5 GB), numpy 2.4.6, packaging 25.0.
# Input:    torch.export of x.reshape(x.shape[0], -1).sum(1) for x of shape [1, 3, 8, 8], given to convert_model.
# Expected: a model of input [1, 3, 8, 8], as the program has no other; four images are refused, as by PyTorch.
# Seen:     a model of input [?, ?, ?, ?] that takes four images and gives one sum over all of them.
#           With input=[1, 3, 8, 8] the model has that shape and refuses.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 openvino==2026.4.1 packaging==25.0 torch==2.14.1
CUDA_VISIBLE_DEVICES="" "$folder/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import openvino
import torch


class SumOfEachImage(torch.nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1).sum(1)


def answer(run):
    try:
        return np.asarray(run()).tolist()
    except (AssertionError, RuntimeError) as error:
        return f"refused ({type(error).__name__})"


program = torch.export.export(SumOfEachImage(), (torch.ones(1, 3, 8, 8),))
converted = openvino.convert_model(program)
told = openvino.convert_model(program, input=[1, 3, 8, 8])
images = np.ones((4, 3, 8, 8), np.float32)
by_pytorch = answer(lambda: program.module()(torch.from_numpy(images)))
by_openvino = answer(lambda: openvino.compile_model(converted, "CPU")(images)[0])
when_told = answer(lambda: openvino.compile_model(told, "CPU")(images)[0])
one = answer(lambda: openvino.compile_model(converted, "CPU")(images[:1])[0])
print(f"shape of the program's input: [1, 3, 8, 8]; of OpenVINO's: {converted.input(0).partial_shape}")
print(f"four images of 192 ones: PyTorch: {by_pytorch}; OpenVINO: {by_openvino}; with input=[1, 3, 8, 8]: {when_told}")
assert one == [192.0], "the control differs"
assert isinstance(by_pytorch, str), "the behaviour of PyTorch has changed"
assert isinstance(when_told, str), "the control differs"
assert str(converted.input(0).partial_shape) == "[?,?,?,?]", "the behaviour has changed"
assert by_openvino == [768.0], "the behaviour has changed"
PYTHON
