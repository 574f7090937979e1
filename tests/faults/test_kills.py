"""A matrix that is killed at random moments, or stopped, ends as one that nobody disturbed."""

import os
import resource
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mlbench.executors.run_status import overview
from mlbench.leases import HEARTBEAT
from mlbench.store import Store
from tests.executors.test_local import descendants, until
from tests.faults.conftest import board, look_again

KILLS = 50
EARLY = 0.2
"""Share of the kills that do not wait for a run to be in training."""


def spent(pids):
    """Seconds of the CPU that processes took, with those of their children that have ended."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def in_training(results):
    """Whether a run of a store trains."""
    runs = overview(results).values() if results.is_dir() else ()
    found = [one for one in runs if one.state == "running"]
    return any(one.status is not None and one.status.phase == "training" for one in found)


def kill_at_random(going, generator, seconds, results):
    """Kill processes of a matrix until its launcher has ended; yields the name of each, and when.

    Moments are told by the time of the CPU that the matrix took, so they do not depend on how busy
    the machine is.
    """

    def family():
        return [going.pid, *sorted(descendants(going.pid))]

    def wait_for(condition):
        while going.poll() is None and not condition():
            time.sleep(0.05)
        return going.returncode is None

    while True:
        if generator.random() > EARLY:
            wait_for(lambda: in_training(results))
        due = spent(family()) + generator.uniform(0, seconds)
        if not wait_for(lambda due=due: spent(family()) >= due):
            return
        when = "in training" if in_training(results) else "before"
        pids = family()
        victim = int(generator.choice(pids[-1:] if generator.random() < 0.85 else pids))
        kind = ["launcher", "server", "run"][min(pids.index(victim), 2)]
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(victim, signal.SIGKILL)
        yield kind, when
        if kind == "launcher":
            break
    going.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.slow
def test_a_matrix_that_is_killed_again_and_again_is_finished_as_if_undisturbed(
    suite, cli, begin, tmp_path, monkeypatch
):
    monkeypatch.setenv(HEARTBEAT, "0.5")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the last runs end in this process
    file = suite({"epochs": 20}, plugins=["gap", "gmp"], seeds=[0, 1, 2, 3, 4, 5])
    run = ("run", "--suite", file, "--checkpoint-every", "0.01")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with begin(*run, "--results", "whole") as going:
        going.communicate()
    assert going.returncode == 0
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    generator, killed, seen, results = np.random.default_rng(13), [], {}, tmp_path / "results"
    while len(killed) < KILLS:
        with begin(*run) as going:
            for one in kill_at_random(going, generator, 2 * seconds / KILLS, results):
                killed.append(one)
                if len(killed) == KILLS:
                    going.kill()
        seen = look_again(seen, results)
        done = len(Store(results).records())
        print(f"{len(killed)} kills: {dict(Counter(killed))}; {done} of 12 runs are done")
        assert done < 12, "nothing was left to kill"
    assert sum(when == "in training" for _, when in killed) > KILLS / 2
    cli(*run).ok()
    look_again(seen, results)
    assert board(results) == board(tmp_path / "whole")
    assert not list(results.glob("runs/*/failure.json"))
    assert "12 runs in results: 12 done" in cli("status").out


def test_a_stopped_matrix_goes_on_and_a_damaged_state_costs_its_run_only(
    heads, suite, cli, tmp_path, monkeypatch
):
    run = ("run", "--suite", suite({"epochs": 2}, plugins=["stopped"], seeds=[0, 1]), "--jobs", 2)
    results, meeting = tmp_path / "results", tmp_path / "meeting"
    meeting.mkdir()
    monkeypatch.setenv("FAULT_MEETING", str(meeting))
    monkeypatch.setenv("FAULT", str(os.getpid()))
    cli(*run).failed("repeat the command to run the rest", code=143)
    assert not Store(results).records() and not list(results.glob("runs/*/failure.json"))
    whole, cut = sorted(results.glob("runs/*/state.pt"))
    os.truncate(cut, cut.stat().st_size // 2)
    monkeypatch.delenv("FAULT")
    cli(*run).ok()
    notes = {record.run_id: record.notes for record in Store(results).records()}
    assert notes[whole.parent.name][-1] == "resumed after step 3"
    assert notes[cut.parent.name][-1] == "state.pt was damaged and not used"
    assert not list(results.glob("runs/*/state*.pt"))
    cli(*run, "--results", "undisturbed").ok()
    assert board(results) == board(tmp_path / "undisturbed")
