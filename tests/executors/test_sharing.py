"""Processes that carry out runs of one store: each run once, whoever begins, dies or is slow."""

import os
import time

import pytest

from mlbench.engine.distributed import World
from mlbench.executors import fail, make_jobs, worker
from mlbench.leases import claim, find_holder
from mlbench.store import Store
from mlbench.types import Places
from tests.store.made import made_predictions, made_record


class Runs:
    """Stands for ``one_run.run``: what a run does in its course, and whose record results."""

    def __init__(self):
        self.begun = []
        self.meanwhile = lambda progress: None

    def __call__(self, spec, places, world, progress, command):
        self.begun.append(spec.run_id)
        progress.stage("training")
        self.meanwhile(progress)
        made = {"spec": spec, "run_id": spec.run_id, "command": command}
        return made_record("gap").model_copy(update=made), made_predictions()


@pytest.fixture
def runs(monkeypatch):
    found = Runs()
    monkeypatch.setattr(worker, "run", found)
    return found


@pytest.fixture
def job(tmp_path):
    places = Places(results=tmp_path / "store", cache=tmp_path / "cache")
    return lambda: make_jobs([made_record("gap").spec], places, "mlbench run")[0]


def carry_out(job):
    return worker.carry_out(job, World(), worker.Events(World(), lambda *_: None))


def test_a_run_that_another_process_holds_is_left_alone(runs, job):
    mine = job()
    with claim(mine.folder):
        outcome = carry_out(mine)
    assert (outcome.record, outcome.failure, runs.begun) == (None, None, [])
    assert carry_out(mine).record.command == "mlbench run"
    assert find_holder(mine.folder) is None


@pytest.mark.parametrize("ended", ["done", "failed"])
def test_what_another_launcher_made_of_a_run_since_it_was_planned_counts(runs, job, ended):
    first, second = job(), job()
    if ended == "done":
        carry_out(first)
    else:
        fail(first, "error", "no luck")
    outcome = carry_out(second)
    assert len(runs.begun) == (ended == "done")
    assert (outcome.record is not None, outcome.failure is None) == (ended == "done",) * 2
    assert carry_out(job()).record is not None, "a launcher that knows of it tries again"


def test_a_run_whose_lease_was_lost_ends_at_its_next_step_and_writes_nothing(runs, job):
    mine, seen = job(), []

    def lose(progress):
        old = time.time() - 300
        os.utime(next(mine.folder.glob("lease-*.json")), (old, old))
        seen.append(claim(mine.folder))
        progress.lease.check()

    runs.meanwhile = lose
    outcome = carry_out(mine)
    assert (outcome.record, outcome.failure) == (None, None)
    assert not mine.failure_file.exists() and not Store(mine.places.results).records()
    seen[0].check()
