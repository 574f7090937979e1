"""Fixtures of the command line that executors are tested with, and a run that waits."""

import pytest

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


@pytest.fixture
def gate(install, tmp_path):
    """A file for which runs of the head ``waits`` wait at their third step, unless stopped."""
    file = tmp_path / "gate"
    install("waiting", HEADS + WAITS.format(str(file)), "[mlbench.heads]\nwaits = waiting:Waits")
    return file
