"""What `mlbench status` and `mlbench why` say of runs in every state."""

import os
import time

import pytest

from mlbench.cli.matrix import print_failures
from mlbench.executors import Failure, Outcome, fail, make_jobs
from mlbench.executors.run_status import Followed, StatusFile, overview
from mlbench.executors.sharing import QueuedRun, announce
from mlbench.leases import claim
from mlbench.types import Places
from tests.engine import tiny
from tests.test_build import matrix
from tests.test_plan import record_of


@pytest.fixture
def jobs(tmp_path):
    """Five runs that differ in their epochs; 10 to 14."""
    specs = [spec for epochs in range(10, 15) for spec in matrix({"epochs": epochs})]
    places = Places(results=tmp_path / "results", cache=tmp_path / "cache")
    return make_jobs(specs, places, "mlbench run --plugins gap")


def queued(job):
    return QueuedRun(run_id=job.spec.run_id, title=job.spec.title, why="no record")


def test_every_state_is_shown_with_what_matters_of_it(cli, jobs):
    done, running, failed, stopped, waiting = jobs
    assert "nothing yet" in cli("status").out
    cli("status", "--results", "nowhere").failed("there is no folder nowhere")
    record_of(done.spec, done.places.results)
    fail(failed, "killed", "killed by SIGKILL from outside", "give it more memory")
    claim(stopped.folder).release()
    queue = [queued(job) for job in jobs if job is not stopped]
    with claim(running.folder) as lease, announce(done.places.results, queue[-1:]):
        progress = StatusFile(running, lease, tiny.Quiet())
        progress.phase("training")
        for step in range(5):
            time.sleep(0.01)
            progress.step(epoch=4, step=step, steps=10, loss=0.5, speed=321.4)
        progress.phase("evaluation")
        progress.count(0, 10)
        told = cli("status").out
        line = next(line for line in told.splitlines() if running.spec.run_id in line)
        assert "running" in line and "evaluation" in line and "@" in line
        assert "killed by SIGKILL" in told
        assert "5 runs in results: 1 done, 1 running, 1 stopped, 1 failed, 1 queued" in told
        assert "missing: no record" in cli("why", waiting.spec.run_id).out
    assert "1 queued" not in cli("status").out


def test_a_status_has_the_share_that_is_done_and_the_time_left(jobs, monkeypatch):
    job, now = jobs[0], [100.0]
    monkeypatch.setattr("mlbench.executors.run_status.time.monotonic", lambda: now[0])
    with claim(job.folder) as lease:
        progress = StatusFile(job, lease, tiny.Quiet())
        progress.phase("training")
        for step in range(1, 11):
            now[0] += 3
            progress.step(epoch=4, step=step, steps=10, loss=float("nan"), speed=321.4)
        state = overview(job.places.results)[job.spec.run_id]
    assert state.detail.startswith("training 5/10 50%, 321 images/s, 0:02:30 left, ")


def test_the_time_left_begins_anew_with_another_total(monkeypatch):
    now, run, left = [0.0], Followed("", 1), []
    monkeypatch.setattr("mlbench.executors.run_status.time.monotonic", lambda: now[0])
    for now[0], done, total in ((0.0, 0, 100), (10.0, 50, 100), (20.0, 10, 60), (30.0, 20, 60)):
        run.count(done, total)
        left.append(run.now.left)
    assert left == [None, 10.0, None, 40.0]


def test_an_outcome_of_before_does_not_count_for_a_run_in_a_queue(cli, jobs):
    job = jobs[0]
    fail(job, "error", "no luck")
    old = time.time() - 10
    os.utime(job.failure_file, (old, old))
    with announce(job.places.results, [queued(job)]):
        assert ": 1 queued" in cli("status").out
        fail(job, "error", "no luck")
        assert ": 1 failed" in cli("status").out


def test_a_run_that_diverged_is_not_done(cli, jobs):
    lost = {"status": "diverged", "error": "the training loss became nan at step 31"}
    record_of(jobs[0].spec, jobs[0].places.results, **lost)
    told = cli("status").out
    assert "became nan at step 31" in told and "--retry-diverged" in told and "1 diverged" in told
    why = cli("why", jobs[0].spec.run_id).out
    assert "diverged the training loss became nan" in why and "--retry-diverged" in why


def test_failures_of_one_reason_are_told_once(jobs, capsys):
    lost = (f"no network <object at 0x{number}>\n  a.jpg" for number in range(2))
    for job, reason in zip(jobs, (*lost, "no luck"), strict=False):
        fail(job, "error", reason)
    failures = [Failure.read(job.failure_file) for job in jobs[:3]]
    outcomes = [Outcome(j.spec, j.log, failure=f) for j, f in zip(jobs, failures, strict=False)]
    print_failures(outcomes, {jobs[1].spec.run_id: "epochs=11"})
    told = capsys.readouterr().err
    assert "epochs=11" in told, "what tells it from others of its title"
    assert "a.jpg" not in told, "the lines of the runs list it"
    assert told.count("no network") == told.count("2 runs FAILED") == told.count("no luck") == 1


def test_why_names_the_reason_of_a_failure_and_the_nearest_record_of_a_run(cli, jobs):
    done, other, failed, *_ = jobs
    record_of(done.spec, done.places.results)
    record_of(other.spec, other.places.results, numbers={"head gone": 1})
    failed.folder.mkdir(parents=True)
    failed.log.write_text("the last words\n")
    fail(failed, "killed", "killed by SIGKILL from outside", "give it more memory")
    told = ("killed by SIGKILL", "give it more memory", "the last words", "--plugins gap")
    cli("why", failed.spec.run_id[:6]).ok(*told)
    differs = f"{other.spec.run_id[:8]}, differs in: settings.epochs: 11, this run 10"
    cli("why", f"results/runs/{done.spec.run_id}").ok(differs, "is current; made")
    cli("why", other.spec.run_id).ok("current as far as is known; not installed: head gone")
    cli("why", "xyz").failed("none of the 3 runs in results begins", "mlbench run --dry-run")
