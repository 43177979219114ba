"""Write a detector for other software: ``python export.py run=runs/... format=huggingface``; see ``--help``."""

import hydra
from omegaconf import DictConfig

from rtdetrv2_train.runs.command_line import answer_plainly


@hydra.main(config_path="conf", config_name="export", version_base="1.3")
def main(config: DictConfig) -> None:
    """Export as configured."""
    from rtdetrv2_train.runs.export import export

    export(config)


if __name__ == "__main__":
    answer_plainly(main)
