"""``python -m benchmarks.gpu``: see `command`."""

from benchmarks.gpu.command import main

if __name__ == "__main__":
    main()
