#!/usr/bin/env bash
# OpenVINO on a CPU: quotients and remainders of int32 are computed in float32, those of int64 too.
#
# Packages: openvino 2026.4.1, onnx 1.23.2, numpy 2.4.6.
# Input:    ONNX models (opset 18) of one operator, Div, Mod or Mul, on integers above 2**24.
# Expected: integers as exact as their type, as of ONNX's reference evaluator.
# Seen:     16777217 / 1 is 16777216, and 33554435 mod 3 is 0. Products of the same numbers are exact.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 openvino==2026.4.1
"$folder/bin/python" - <<'PYTHON'
import numpy as np
import openvino
from onnx import helper
from onnx.reference import ReferenceEvaluator

first, second = [16777217, 33554435], [1, 3]
for kind in (np.int32, np.int64):
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    for operator in ("Mul", "Div", "Mod"):
        graph = helper.make_graph(
            [helper.make_node(operator, ["a", "b"], ["c"])],
            "graph",
            [helper.make_tensor_value_info(name, number, [2]) for name in "ab"],
            [helper.make_tensor_value_info("c", number, [2])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        a, b = np.array(first, kind), np.array(second, kind)
        expected = ReferenceEvaluator(model).run(None, {"a": a, "b": b})[0]
        read = openvino.Core().read_model(model.SerializeToString())
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        found = openvino.compile_model(read, "CPU", settings)([a, b])[0]
        print(f"{kind.__name__} {operator} {first} {second}: expected {expected.tolist()}, OpenVINO {found.tolist()}")
        assert np.array_equal(expected, found) == (operator == "Mul"), "the behaviour has changed"
PYTHON
