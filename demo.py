"""Try a detector on a page of this machine: ``python demo.py run=runs/...``, the same as ``rtdetrv2 demo``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("demo")
