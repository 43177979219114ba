"""The private names of other packages that are used here: each is listed, and exists in the installed version."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import NamedTuple

import pytest

from tests.support import ROOT


class PrivateName(NamedTuple):
    """A private name that is used."""

    owner: str  # a class, or a module
    name: str
    file: str  # the only one that uses it
    purpose: str


LIGHTNING = "lightning.pytorch"
USED = (
    PrivateName("torch.Tensor", "_version", "model/layers.py", "tells whether a buffer has changed in place"),
    PrivateName(
        "torch.nn.Module", "_load_from_state_dict", "model/decoder.py", "the hook for weights of other releases"
    ),
    PrivateName(
        "torch.amp.GradScaler", "_scale", "training/module.py", "get_scale() would wait for the GPU at every step"
    ),
    PrivateName("torch", "_foreach_copy_", "training/callbacks/nan_guard.py", "one kernel for all statistics"),
    PrivateName("torch", "_foreach_mul_", "training/callbacks/ema.py", "one kernel for all weights"),
    PrivateName("torch", "_foreach_add_", "training/callbacks/ema.py", "one kernel for all weights"),
    *(
        PrivateName("torch", f"_foreach_{name}_", "training/muon.py", "one kernel for all matrices of a shape")
        for name in ("add", "copy", "mul", "sub")
    ),
    PrivateName(
        f"{LIGHTNING}.callbacks.WeightAveraging", "_average_model", "training/callbacks/ema.py", "an EMA of our own"
    ),
    PrivateName(
        f"{LIGHTNING}.callbacks.ModelCheckpoint",
        "_save_last_checkpoint",
        "training/callbacks/checkpointing.py",
        "writes the last checkpoint within an epoch, and once a step",
    ),
    PrivateName(
        f"{LIGHTNING}.callbacks.ModelCheckpoint",
        "_monitor_candidates",
        "training/callbacks/checkpointing.py",
        "what it takes to write one",
    ),
    PrivateName(
        f"{LIGHTNING}.callbacks.TQDMProgressBar",
        "_should_update",
        "training/callbacks/progress.py",
        "refreshes by time, not by steps",
    ),
    PrivateName(
        f"{LIGHTNING}.strategies.DDPStrategy",
        "_timeout",
        "data/loading/datamodule.py",
        "how long ranks wait for each other",
    ),
    PrivateName("optuna.trial.Trial", "_suggest", "sweeps/study.py", "draws from a distribution, whatever its class"),
    PrivateName("optuna.trial.FrozenTrial", "_trial_id", "sweeps/study.py", "attaches to a trial by its number"),
    PrivateName("torch", "_inductor", "export/pt2.py", "where AOTInductor is, documented so"),
    PrivateName("torch", "_inductor", "inference/runtimes/aoti.py", "where AOTInductor is, documented so"),
    PrivateName("os", "_exit", "training/distributed.py", "documented; private in name only"),
)


NAMED_TUPLES = {"_asdict", "_fields", "_replace"}
"""What named tuples offer, documented, with an underscore that keeps it apart from their own fields."""


@pytest.mark.parametrize("used", USED, ids=lambda used: f"{used.owner}.{used.name}")
def test_each_private_name_exists(used: PrivateName) -> None:
    module, _, attribute = used.owner.rpartition(".")
    owner = getattr(importlib.import_module(module), attribute) if module else importlib.import_module(used.owner)
    assert hasattr(owner, used.name) or f"self.{used.name}" in inspect.getsource(owner)


def test_no_other_private_name_of_another_package_is_used() -> None:
    trees = {
        path.relative_to(ROOT).as_posix().removeprefix("rtdetrv2_train/"): ast.parse(path.read_text(encoding="utf-8"))
        for folder in ("rtdetrv2_train", "hydra_plugins")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    listed = {(used.file, used.name) for used in USED}
    own = set().union(*map(defined_in, trees.values())) - {used.name for used in USED} | NAMED_TUPLES
    found = {(file, name) for file, tree in trees.items() for name in private_names(tree) - own}
    assert found == listed


def private_names(tree: ast.AST) -> set[str]:
    """Private attributes, names of attributes in strings, and imported private names and modules of a file."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            origin = (getattr(node, "module", None) or "").split(".")
            names.update(
                *(alias.name.split(".") for alias in node.names), [] if origin[0] == "rtdetrv2_train" else origin
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            names.update(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    return {name for name in names if name.startswith("_") and not name.endswith("__") and name != "_target_"}


def defined_in(tree: ast.AST) -> set[str]:
    """Functions, classes, variables and attributes of ``self`` that a file defines."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names
