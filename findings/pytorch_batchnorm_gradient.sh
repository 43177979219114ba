#!/usr/bin/env bash
# PyTorch on a CPU: the gradient of BatchNorm2d depends on how the incoming gradient lies in memory.
#
# Packages: torch 2.14.1 (large: with CUDA some 5 GB), numpy 2.4.6.
# Input:    BatchNorm2d in training, on an ordinary tensor with batch size 1, in float64. The map is flattened and
#           transposed into tokens, as before an attention layer, so the gradient comes back with its channels last.
# Expected: the same gradient as from a contiguous copy of the tokens' gradient, up to rounding.
# Seen:     another gradient, wrong by more than its own size, and no warning. With batch size 2, or with the input
#           in channels-last format, it is right.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
CUDA_VISIBLE_DEVICES="" "$folder/bin/python" - <<'PYTHON'
import torch
from torch import nn


def gradients(images, token_gradient, contiguous):
    images = images.clone().requires_grad_()
    norm = nn.BatchNorm2d(images.shape[1]).double()
    features = norm(images)
    if contiguous:
        features.register_hook(lambda gradient: gradient.contiguous())
    tokens = features.flatten(2).transpose(1, 2)
    tokens.backward(token_gradient)
    return images.grad, norm.weight.grad


for batch_size, is_wrong in ((1, True), (2, False)):
    torch.manual_seed(0)
    images = torch.randn(batch_size, 8, 5, 7, dtype=torch.float64)
    token_gradient = torch.randn(batch_size, 35, 8, dtype=torch.float64)
    got, got_weight = gradients(images, token_gradient, contiguous=False)
    right, right_weight = gradients(images, token_gradient, contiguous=True)
    error, weight_error = (got - right).abs().max().item(), (got_weight - right_weight).abs().max().item()
    print(
        f"batch size {batch_size}: input gradient up to {right.abs().max():.2f}, differs by {error:.2g}; "
        f"weight gradient up to {right_weight.abs().max():.2f}, differs by {weight_error:.2g}"
    )
    assert (error > 1) == is_wrong and (weight_error > 1) == is_wrong, "the behaviour has changed"
PYTHON
