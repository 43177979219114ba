"""Try a detector on a page of this machine: ``python demo.py run=runs/...``; see ``python demo.py --help``."""

import hydra
from omegaconf import DictConfig

from rtdetrv2_train.runs.command_line import answer_plainly


@hydra.main(config_path="conf", config_name="demo", version_base="1.3")
def main(config: DictConfig) -> None:
    """Serve the page as configured."""
    from rtdetrv2_train.runs.demo import demo

    demo(config)


if __name__ == "__main__":
    answer_plainly(main)
