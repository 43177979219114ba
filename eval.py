"""Measure a detector: ``python eval.py run=runs/...``; see ``python eval.py --help``."""

import hydra
from omegaconf import DictConfig

from rtdetrv2_train.runs.command_line import answer_plainly


@hydra.main(config_path="conf", config_name="eval", version_base="1.3")
def main(config: DictConfig) -> None:
    """Evaluate as configured."""
    from rtdetrv2_train.runs.evaluate import evaluate

    evaluate(config)


if __name__ == "__main__":
    answer_plainly(main)
