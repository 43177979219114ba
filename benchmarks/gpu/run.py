"""A whole run as users have it: the quickstart, with its loader."""

from __future__ import annotations

import json
import time

from benchmarks.gpu.plan import Figures, Measurement, Plan
from rtdetrv2_train import train
from rtdetrv2_train.runs.folder import HISTORY_FILE

_SECONDS = 20
_SMALL = ("data.num_train=32", "data.num_val=8", "model.image_size=[64,64]", "trainer=cpu", "trainer.max_epochs=2")


def measurements(plan: Plan) -> list[Measurement]:
    """The quickstart alone."""
    return [Measurement("quickstart", lambda: quickstart(plan), limit=45)]


def quickstart(plan: Plan) -> Figures:
    """AP, seconds with start and evaluation, and the share of the time that training has waited for images.

    On a GPU training is stopped after 20 seconds, wherever it is.
    """
    folder = plan.folder / "quickstart"
    overrides = _SMALL if plan.dry_run else ("trainer=gpu", f"+trainer.max_time.seconds={_SECONDS}")
    began = time.perf_counter()
    trained = train("experiment=quickstart", f"data.root={plan.folder / 'shapes'}", f"run_folder={folder}", *overrides)
    seconds = time.perf_counter() - began
    epochs = json.loads((folder / HISTORY_FILE).read_text()) if (folder / HISTORY_FILE).exists() else []
    figures: Figures = {"seconds": seconds, "AP": None if trained.metrics is None else trained.metrics.AP}
    if epochs:
        last = epochs[-1]
        figures |= {
            "epochs": last["epoch"] + 1,
            "steps": last["step"],
            "AP of epochs": [it.get("val/AP") for it in epochs],
        }
        for key, name in (("train/images_per_second", "images/s"), ("train/data_wait_share", "share of data wait")):
            if key in last:
                figures[name] = last[key]
    return figures
