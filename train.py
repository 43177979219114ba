"""Train a detector: ``python train.py model=r50vd``, the same as ``rtdetrv2 train``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("train")
