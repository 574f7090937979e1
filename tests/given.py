"""Files that not every machine has, in a place that an environment variable names."""

import os
from pathlib import Path

import pytest


def path_of(what, content):
    """The path in ``MLBENCH_TEST_<what>``; skips the test where it is not set."""
    if named := os.environ.get(f"MLBENCH_TEST_{what}"):
        return Path(named)
    return pytest.skip(f"MLBENCH_TEST_{what} names no {content}")
