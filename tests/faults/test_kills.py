"""A matrix whose processes are killed at random moments ends as one that nobody disturbed."""

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from mlbench.leases import HEARTBEAT
from mlbench.store import Store
from tests.cli.test_run import mlbench
from tests.executors.test_local import descendants, until
from tests.faults.conftest import board, look_again

KILLS = 12


def spent(pids):
    """Seconds of the CPU that processes took, with those of their children that have ended."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def kill_at_random(going, generator, seconds):
    """Kill processes of a matrix until its launcher has ended; yields the name of each.

    Moments are told by the time of the CPU that the matrix took, so they do not depend on how busy
    the machine is.
    """
    due = generator.uniform(0, seconds)
    while True:
        while going.poll() is None:
            family = [going.pid, *sorted(descendants(going.pid))]
            if spent(family) >= due:
                break
            time.sleep(0.02)
        if going.returncode is not None:
            return
        victim = int(generator.choice(family))
        kind = ["launcher", "server", "run"][min(family.index(victim), 2)]
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(victim, signal.SIGKILL)
        due += generator.uniform(0, seconds / 8)
        yield kind
        if kind == "launcher":
            break
    going.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))


@pytest.mark.slow
def test_a_matrix_that_is_killed_again_and_again_is_finished_as_if_undisturbed(
    suite, cli, cache, tmp_path, monkeypatch
):
    monkeypatch.setenv(HEARTBEAT, "0.5")
    seeds = [0]
    run = ("run", "--suite", suite({"epochs": 2}, plugins=["gap", "gmp"]), "--seeds")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with mlbench(tmp_path, cache, *run, "0", "--results", "first") as going:
        going.communicate()
    assert going.returncode == 0
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    generator, killed, seen, results = np.random.default_rng(13), [], {}, tmp_path / "results"
    while len(killed) < KILLS:
        with mlbench(tmp_path, cache, *run, ",".join(map(str, seeds))) as going:
            killed += kill_at_random(going, generator, seconds)
        seen = look_again(seen, results)
        print(f"killed: {', '.join(killed)}; {len(Store(results).records())} runs are done")
        seeds.append(len(seeds))  # so that there is always something left to kill
    ended = cli(*run, ",".join(map(str, seeds)))
    assert ended.code == 0, ended.err
    look_again(seen, results)
    assert cli(*run, ",".join(map(str, seeds)), "--results", "whole").code == 0
    assert board(results) == board(tmp_path / "whole")
    assert not list(results.glob("runs/*/failure.json"))
    runs = 2 * len(seeds)
    assert f"{runs} runs in results: {runs} done" in cli("status").out
