"""Find objects in images: ``python predict.py run=runs/... source=photos``, the same as ``rtdetrv2 predict``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("predict")
