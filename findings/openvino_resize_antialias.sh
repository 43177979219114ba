#!/usr/bin/env bash
# OpenVINO: the attribute antialias of ONNX's Resize is ignored without a word.
#
# Packages: openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6, pillow 12.1.0.
# Input:    an ONNX model (opset 18) of one Resize, mode linear, that shrinks a random image from 64x64 to 16x16.
# Expected: with antialias=1 what ONNX's reference evaluator gives, which inside of the border is Pillow's bilinear
#           filter; or a refusal to read the model.
# Seen:     with antialias=1 the very numbers of antialias=0, some 80 of 255 levels away. With antialias=0 both agree.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1 pillow==12.1.0
"$folder/bin/python" - <<'PYTHON'
import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

image = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.float32)


def resize(antialias):
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", antialias=antialias)
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 16, 16])],
        [numpy_helper.from_array(np.array([1, 1, 16, 16]), "sizes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def within(values):
    return values[0, 0, 1:-1, 1:-1]


pillow = np.array(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))[None, None]
found, reference = {}, {}
for antialias in (0, 1):
    model = resize(antialias)
    reference[antialias] = ReferenceEvaluator(model).run(None, {"x": image[None, None]})[0]
    read = openvino.Core().read_model(model.SerializeToString())
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found[antialias] = openvino.compile_model(read, "CPU", settings)(image[None, None])[0]
    error = np.abs(within(found[antialias] - reference[antialias])).max()
    print(f"antialias={antialias}: OpenVINO differs from ONNX's reference by {error:.4g} of 255 levels")
print(f"ONNX's reference with antialias=1 differs from Pillow by {np.abs(within(reference[1] - pillow)).max():.2g}")
assert np.abs(within(reference[1] - pillow)).max() < 0.01, "the reference is no longer Pillow's filter"
assert np.abs(found[0] - reference[0]).max() < 0.01, "the control differs"
assert np.array_equal(found[0], found[1]), "the behaviour has changed"
assert np.abs(within(found[1] - reference[1])).max() > 10, "the behaviour has changed"
PYTHON
