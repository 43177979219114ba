"""Train a detector: ``python train.py model=r50vd``; see ``python train.py --help``."""

import hydra
from omegaconf import DictConfig

from rtdetrv2_train.runs.command_line import answer_plainly


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(config: DictConfig) -> float | None:
    """Train as configured; returns AP, for sweeps."""
    from rtdetrv2_train.runs.train import train

    return train(config)


if __name__ == "__main__":
    answer_plainly(main)
