"""Measure a detector: ``python eval.py run=runs/...``, the same as ``rtdetrv2 eval``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("eval")
