"""Write a detector for other software: ``python export.py run=runs/...``, the same as ``rtdetrv2 export``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("export")
