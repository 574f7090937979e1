"""Fixtures of the command line that executors are tested with, and a run that waits."""

import subprocess
import sys

import pytest

from mlbench.leases import HEARTBEAT
from tests.cli.conftest import suite  # noqa: F401 - a fixture
from tests.executors.test_local import HEADS

WAITS = """
from mlbench.engine.signals import STOP


class Waits(Head):
    steps = 0

    def fault(self):
        self.steps += 1
        while self.steps > 2 and not (STOP.asked or os.path.exists({!r})):
            time.sleep(0.05)
"""


def start(file, results, *executor, **options):
    """Start a launcher; ``executor`` is the name of one and more flags, with its options."""
    command = [sys.executable, "-m", "mlbench", "run", "--suite", file, "--results", results]
    if executor:
        command += ["--device", "cpu", "--set", "measure=false", "--executor", *executor]
    for name, value in options.items():
        command += ["--set", f"executor_options.{name}={value}"]
    return subprocess.Popen(list(map(str, command)))


@pytest.fixture
def quick(cache, monkeypatch):
    """Small caches, threads and beats for the runs of a test."""
    monkeypatch.setenv("MLBENCH_CACHE", str(cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(HEARTBEAT, "2")


@pytest.fixture
def gate(install, tmp_path):
    """A file for which runs of the head ``waits`` wait at their third step, unless stopped."""
    file = tmp_path / "gate"
    install("waiting", HEADS + WAITS.format(str(file)), "[mlbench.heads]\nwaits = waiting:Waits")
    return file
