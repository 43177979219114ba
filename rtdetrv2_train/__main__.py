"""``python -m rtdetrv2_train``: the same as ``rtdetrv2``."""

from rtdetrv2_train.cli import main

if __name__ == "__main__":
    main()
