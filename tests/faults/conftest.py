"""A matrix of heads that misbehave when told so, and what is left of it."""

import csv

import pytest

from mlbench.files import sha256
from tests.cli.conftest import suite  # noqa: F401 - a fixture
from tests.executors.test_local import HEADS, NAMES_OF

MORE = '''
from mlbench.engine.signals import STOP
from mlbench_plugins.losses.bce import BCE
from tests.given import locked

class Freezes(Head):
    def fault(self):
        os.kill(os.getpid(), signal.SIGSTOP)

class Vanishes(Head):
    """Takes the images away that it is trained on."""

    def fault(self):
        folder = os.environ["FAULT_IMAGES"]
        if os.path.exists(folder):
            os.rename(folder, folder + ".away")

class Locks(Head):
    """Takes the right to write records away, from an administrator's process, too."""

    kept = []  # as what leaves the block gives the right back

    def fault(self):
        if not self.kept:
            self.kept.append(locked(os.environ["FAULT_RESULTS"], 0o555))
            self.kept[0].__enter__()

class Stopped(Head):
    """Waits at its third step for the other run; then one of them has the launcher stopped."""

    steps = 0

    def fault(self):
        self.steps += 1
        meeting, me = os.environ["FAULT_MEETING"], str(os.getpid())
        if self.steps == 3:
            open(os.path.join(meeting, me), "w").close()
            while len(here := os.listdir(meeting)) < 2:
                time.sleep(0.01)
            if me == min(here):
                os.kill(int(os.environ["FAULT"]), signal.SIGTERM)
            while not STOP.asked:
                time.sleep(0.01)

class Nan(BCE):
    def forward(self, logits, targets):
        bad = float("nan") if "FAULT" in os.environ else 1.0
        return bad * super().forward(logits, targets)
'''
OURS = {"freezes": "Freezes", "vanishes": "Vanishes", "locks": "Locks", "stopped": "Stopped"}


@pytest.fixture
def heads(install):
    """Install heads with a fault each, which happens while ``FAULT`` is in the environment."""
    source = HEADS.replace("if self.training", 'if self.training and "FAULT" in os.environ') + MORE
    entries = [f"{name} = faulty:{head}" for name, head in (NAMES_OF | OURS).items()]
    groups = ["[mlbench.heads]", *entries, "[mlbench.losses]", "nan = faulty:Nan"]
    install("faulty", source, "\n".join(groups))


def finished(results):
    """The digests of all that a finished run has: record, predictions, and log."""
    records = list(results.glob("records/*/*/*.json"))
    parts = [(file, file.with_suffix(".npz")) for file in records]
    logs = [results / "runs" / file.stem / "log.txt" for file in records]
    return {file: sha256(file) for file in [*sum(parts, ()), *logs] if file.exists()}


def look_again(before, results):
    """``finished``, after a look that what was finished before was not touched since."""
    now = finished(results)
    assert before.items() <= now.items(), "a finished run was changed, or carried out again"
    assert not list(results.glob("records/*/*/superseded/*"))
    return now


def board(results):
    """The rows of all boards, without the commands that made them."""
    files = sorted(results.glob("leaderboards/*.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text().splitlines())]
    return [{name: value for name, value in row.items() if name != "commands"} for row in rows]
