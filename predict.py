"""Find objects in images: ``python predict.py run=runs/... source=photos``; see ``python predict.py --help``."""

import sys

import hydra
from omegaconf import DictConfig

from rtdetrv2_train.runs.command_line import answer_plainly


@hydra.main(config_path="conf", config_name="predict", version_base="1.3")
def main(config: DictConfig) -> None:
    """Predict as configured; exits with status 1 if some images could not be read."""
    from rtdetrv2_train.runs.predict_source import predict_as_configured

    if predict_as_configured(config).skipped:
        sys.exit(1)


if __name__ == "__main__":
    answer_plainly(main)
