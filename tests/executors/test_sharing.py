"""Processes that carry out runs of one store: each run once, whoever begins, dies or is slow."""

import multiprocessing
import os
import signal
import time

import pytest

from mlbench.engine.distributed import World
from mlbench.executors import Failure, Options, fail, make_jobs, sharing, worker
from mlbench.leases import HEARTBEAT, claim, find_holder
from mlbench.store import Store
from mlbench.types import Places
from tests.engine import tiny
from tests.store.made import made_predictions, made_record

FORK = multiprocessing.get_context("fork")


class Runs:
    """Stands for ``one_run.run``: what a run does in its course, and whose record results."""

    def __init__(self):
        self.begun = []
        self.meanwhile = lambda progress: None

    def __call__(self, spec, places, world, progress, command, neighbours, short):
        self.begun.append(spec.run_id)
        yield
        progress.phase("training")
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

    def make(seed=0, replaces=None):
        return make_jobs([made_record("gap", spec={"seed": seed}).spec], places, "-", replaces)[0]

    return make


def carry_out(job):
    return worker.carry_out(job, World(), tiny.Quiet())


def test_a_run_that_another_process_holds_is_left_alone(runs, job):
    mine = job()
    with claim(mine.folder):
        outcome = carry_out(mine)
    assert (outcome.record, outcome.failure, runs.begun) == (None, None, [])
    assert outcome.holder.endswith("+00:00")
    assert carry_out(mine).record is not None
    assert find_holder(mine.folder) is None


@pytest.mark.parametrize("ended", ["done", "failed"])
def test_what_another_launcher_made_of_a_run_since_it_was_planned_counts(runs, job, ended):
    first, second, replaces = job(), job(), {}
    if ended == "done":
        record = carry_out(first).record
        second, replaces = job(), {record.run_id: Store(first.places.results).records()[0].digest}
    else:
        fail(first, "error", "no luck")
    outcome = carry_out(second)
    assert len(runs.begun) == (ended == "done")
    assert (outcome.record is not None, outcome.failure is None) == (ended == "done",) * 2
    again = carry_out(job(replaces=replaces))
    assert again.record is not None and len(runs.begun) == 1 + (ended == "done")


def test_a_failure_that_names_a_file_not_in_utf8_is_kept(job):
    failed = fail(mine := job(), "error", "re\udcff/x cannot be read").failure
    assert Failure.read(mine.failure_file) == failed and failed.reason[:8] == r"re\udcff"


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_run_whose_lease_was_lost_ends_at_its_next_step_or_writes_nothing(runs, job, goes_on):
    mine, seen = job(), []

    def lose(progress):
        old = time.time() - 300
        os.utime(next(mine.folder.glob("lease-*.json")), (old, old))
        seen.append(claim(mine.folder))
        if goes_on:
            progress.lease.check()

    runs.meanwhile = lose
    outcome = carry_out(mine)
    assert (outcome.record, outcome.failure) == (None, None)
    assert not mine.failure_file.exists() and not Store(mine.places.results).records()
    seen[0].check()


class Heard(tiny.Quiet):
    """The progress of a matrix, for the ends of its runs."""

    def __init__(self):
        self.ended = []

    def begin(self, number, total, spec):
        return self

    def end(self, outcome):
        self.ended.append(outcome)


def launch(jobs, said=print):
    """Carry out jobs one after the other, as one of several launchers."""
    one_by_one = lambda some, options, progress: [carry_out(job) for job in some]  # noqa: E731
    return sharing.carry_out_all(one_by_one, jobs, Options(), Heard(), said)


def launch_apart(jobs, results):
    results.put([outcome.record is not None for outcome in launch(jobs)])


def test_two_launchers_finish_the_runs_of_one_store_together_and_each_once(
    runs, job, tmp_path, monkeypatch
):
    monkeypatch.setattr(sharing, "POLL", 0.05)
    jobs = [[job(seed) for seed in range(24)] for _ in range(2)]
    began = tmp_path / "began"

    def work(progress):
        with began.open("a") as stream:
            stream.write(f"{os.getpid()} {runs.begun[-1]}\n")
        time.sleep(0.02)

    runs.meanwhile = work
    results = FORK.Queue()
    pair = [FORK.Process(target=launch_apart, args=(mine, results)) for mine in jobs]
    for process in pair:
        process.start()
    assert [results.get(timeout=60) for _ in pair] == [[True] * 24] * 2
    for process in pair:
        process.join()
    lines = [line.split() for line in began.read_text().splitlines()]
    assert len(lines) == 24 == len({run_id for _, run_id in lines})
    assert {int(pid) for pid, _ in lines} == {process.pid for process in pair}
    store = Store(tmp_path / "store")
    assert len(store.records()) == 24 and not store.superseded()


def test_what_a_killed_launcher_left_is_taken_over_and_a_failure_is_not_tried_twice(
    runs, job, monkeypatch
):
    monkeypatch.setattr(sharing, "POLL", 0.05)
    monkeypatch.setenv(HEARTBEAT, "0.25")
    first, second = [job(0), job(1)], [job(0), job(1)]
    stuck = FORK.Event()

    def work(progress):
        if len(runs.begun) == 2:
            stuck.set()
            time.sleep(60)
        raise RuntimeError("no luck")

    runs.meanwhile = work
    other = FORK.Process(target=launch_apart, args=(first, FORK.Queue()))
    other.start()
    assert stuck.wait(30)
    said = []

    def hear(text):
        said.append(text)
        os.kill(other.pid, signal.SIGKILL)

    runs.meanwhile = lambda progress: None
    outcomes = launch(second, hear)
    other.join()
    assert "no luck" in outcomes[0].error and outcomes[1].record is not None
    assert runs.begun == [second[1].spec.run_id]
    assert said[0].startswith("1 run is being carried out by another launcher (")


def test_a_launcher_that_lives_is_known_with_its_queue(job, monkeypatch, tmp_path):
    monkeypatch.setenv(HEARTBEAT, "0.25")
    root, run = tmp_path / "store", sharing.QueuedRun(run_id="a", title="gap", why="no record")
    with sharing.announce(root, [run]):
        ((holder, _, runs),) = sharing.queued(root)
        assert runs == (run,) and not holder.stale
    assert not list(sharing.queued(root))
    dead = root / "queue" / "dead"
    dead.mkdir()
    (dead / "lease-1.json").touch()
    (dead / sharing.RUNS).write_text("[]")
    old = time.time() - 300
    os.utime(dead / "lease-1.json", (old, old))
    assert not list(sharing.queued(root))
    with sharing.announce(root, [run]):
        assert not dead.exists()
