"""The card and the software, and the most that the card does: what shares of its peak are shares of."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

import torch

from benchmarks.gpu.plan import Figures, Measurement, Plan
from benchmarks.gpu.timing import latency, milliseconds_each
from rtdetrv2_train.system.resources import available_cores

_PACKAGES = ("torch", "triton", "lightning", "transformers", "scipy", "numpy")


def measurements(plan: Plan) -> list[Measurement]:
    """What there is."""
    return [
        Measurement("card", lambda: card(plan)),
        Measurement("software", software),
        Measurement("ceiling", lambda: ceilings(plan)),
    ]


def card(plan: Plan) -> Figures:
    """Name and memory of the card.

    Raises:
        RuntimeError: if PyTorch finds none.
    """
    if plan.dry_run:
        return {"device": f"CPU, {torch.get_num_threads()} threads"}
    if not torch.cuda.is_available():
        raise RuntimeError("PyTorch finds no GPU here: --dry-run tries everything on the CPU")
    found = torch.cuda.get_device_properties(0)
    return {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "GiB": found.total_memory / 2**30,
        "free GiB": torch.cuda.mem_get_info()[0] / 2**30,
        "multiprocessors": found.multi_processor_count,
        "bfloat16": torch.cuda.is_bf16_supported(),
    }


def software() -> Figures:
    """Versions, and cores of the machine."""
    versions: Figures = {"Python": platform.python_version(), "cores": available_cores()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions |= {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
    if torch.cuda.is_available():
        versions["NCCL"] = ".".join(map(str, torch.cuda.nccl.version()))
    return versions


def ceilings(plan: Plan) -> Figures:
    """TFLOP/s of a large matrix product, GB/s of a copy within the card, microseconds of starting a kernel."""
    figures: Figures = {
        f"TFLOP/s {name}": product_flops(plan.device, dtype, plan.dry_run) / 1e12
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32))
        if not (plan.dry_run and dtype != torch.float32)
    }
    source = torch.empty(2**20 if plan.dry_run else 2**30, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    figures["GB/s copied"] = 2 * source.numel() / latency(lambda: target.copy_(source), plan.device, 10) / 1e6
    small = torch.zeros(1, device=plan.device)
    milliseconds_each(lambda: small.add_(1), plan.device, 100)
    figures["microseconds a kernel"] = 1000 * milliseconds_each(lambda: small.add_(1), plan.device, 1000)
    return figures


@cache
def product_flops(device: str, dtype: torch.dtype, small: bool = False) -> float:
    """FLOP/s of a product of matrices of 8192 x 8192, or of 256 x 256."""
    side = 256 if small else 8192
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / latency(lambda: left @ right, device, 5) * 1000
