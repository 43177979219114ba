"""Make the pictures of docs/sweeps.md from a made-up study: ``python docs/make_sweep_pictures.py [FOLDER]``."""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import optuna
from PIL import Image

from rtdetrv2_train.sweeps.charts import save_charts

FOLDER = Path(__file__).parent / "pictures"
TRIALS, EPOCHS = 12, 8
QUALITY = 85


def main() -> None:
    """Draw the charts and save those that the page shows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="also save every chart there, as PNG")
    kept = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        for path in save_charts(kept or Path(temporary), made_up_study()):
            if path.stem in ("epochs", "parallel_coordinates"):
                Image.open(path).convert("RGB").save(FOLDER / f"sweep_{path.stem}.webp", quality=QUALITY)


def made_up_study() -> optuna.Study:
    """Twelve trials: a learning rate near 1 and a small weight decay do best."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=3),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
    )
    study.optimize(_train, n_trials=TRIALS)
    return study


def _train(trial: optuna.Trial) -> float:
    factor = trial.suggest_float("recipe.learning_rate_factor", 0.03, 30, log=True)
    decay = trial.suggest_float("recipe.weight_decay", 1e-5, 0.1, log=True)
    norm = trial.suggest_categorical("recipe.max_gradient_norm", ["0.1", "1", "10"])
    reached = 0.55 * math.exp(-((math.log10(factor) / 2) ** 2)) - 0.03 * math.log10(decay / 1e-5) - 0.01 * len(norm)
    speed = 0.3 + 0.1 * math.log10(factor)
    best = 0.0
    for epoch in range(1, EPOCHS + 1):
        ap = max(0.0, reached) * (1 - math.exp(-speed * epoch)) + 0.02 * math.sin(7 * epoch + trial.number)
        best = max(best, ap)
        trial.report(ap, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return best


if __name__ == "__main__":
    main()
