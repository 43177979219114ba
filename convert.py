"""Write a data set as COCO or YOLO: ``python convert.py source=... output=...``, the same as ``rtdetrv2 convert``."""

from rtdetrv2_train.cli import run

if __name__ == "__main__":
    run("convert")
