"""``python -m benchmarks.label_errors``: see `comparison`."""

from benchmarks.label_errors.comparison import main

if __name__ == "__main__":
    main()
