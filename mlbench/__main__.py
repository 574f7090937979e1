"""``python -m mlbench`` and ``torchrun -m mlbench``: the same command as ``mlbench``."""

from mlbench.cli import main

if __name__ == "__main__":
    main()
