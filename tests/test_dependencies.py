"""What the package imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from tests.support import ROOT

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # which pytest brings
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"rtdetrv2_train", "hydra_plugins"}
# Declared, though no module imports them.
NOT_IMPORTED = {
    "tensorboard": "Lightning's logger, which conf/logger/tensorboard.yaml names, writes with it",
    "wandb": "conf/logger/wandb.yaml",
    "mlflow": "conf/logger/mlflow.yaml",
    "hydra-joblib-launcher": "a plugin, which Hydra finds",
    "hydra-submitit-launcher": "a plugin, which Hydra finds",
    "hydra-ray-launcher": "a plugin, which Hydra finds",
    "onnxscript": "torch.onnx.export needs it",
    "imagecodecs": "tifffile decompresses with it",
}
# Imported where it is: PyTorch's wheels for GPUs bring the Triton that fits them.
WITH_PYTORCH = {"triton"}
FOR_DEVELOPERS = {"test", "dev", "docs"}


def imported() -> dict[str, list[str]]:
    """Modules of others that the package imports, with the files that do."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for folder in OWN for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - OWN - WITH_PYTORCH - sys.stdlib_module_names:
                found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def normalised(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def declared() -> set[str]:
    extras = [names for extra, names in PROJECT["optional-dependencies"].items() if extra not in FOR_DEVELOPERS]
    everything = {normalised(requirement) for names in [PROJECT["dependencies"], *extras] for requirement in names}
    return everything - {PROJECT["name"]}  # an extra may hold another


def test_every_import_is_declared_and_every_declared_package_is_used() -> None:
    distributions = packages_distributions()
    used: set[str] = set()
    for module, files in imported().items():
        providers = {normalised(name) for name in distributions.get(module, [module])}
        assert providers & declared(), f"{module}, imported in {files}, is not declared"
        used |= providers
    assert declared() - used == set(NOT_IMPORTED)


def test_what_every_run_imports_needs_no_extra() -> None:
    """An import at the top of a module of the package, outside of sweeps, runs without extras."""
    required = {normalised(name) for name in PROJECT["dependencies"]}
    distributions = packages_distributions()
    for path in sorted((ROOT / "rtdetrv2_train").rglob("*.py")):
        if "sweeps" in path.parts:
            continue
        for module in top_level_imports(path) - OWN - WITH_PYTORCH - sys.stdlib_module_names:
            providers = {normalised(name) for name in distributions.get(module, [module])}
            assert providers & required, f"{path} imports {module}"


def top_level_imports(path: Path) -> set[str]:
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}
