"""Of any number of processes exactly one holds a lease, whoever dies and whenever."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from mlbench.leases import HEARTBEAT, claim, find_holder, release
from mlbench.types import StoreError

FORK = multiprocessing.get_context("fork")


def hold(folder, claimed):
    """Claim in a process of its own, and never end."""
    claimed.put(claim(Path(folder)) is not None)
    time.sleep(60)


def compete(folder, start, wins):
    start.wait()
    lease = claim(Path(folder))
    if lease is not None:
        wins.put(os.getpid())
        time.sleep(0.5)
        lease.check()


def test_a_lease_is_held_by_one_until_it_is_given_back(tmp_path):
    lease = claim(tmp_path / "run", "mine")
    assert claim(tmp_path / "run") is None
    holder = find_holder(tmp_path / "run")
    assert (holder.token, holder.stale) == ("mine", False)
    assert claim(tmp_path / "other") is not None
    lease.release()
    assert find_holder(tmp_path / "run") is None
    shutil.copytree(tmp_path / "run", tmp_path / "copy", copy_function=shutil.copyfile)
    assert find_holder(tmp_path / "copy") is None, "whatever its time is"
    with claim(tmp_path / "run") as second:
        second.check()
    with pytest.raises(StoreError, match="another process took this work over"):
        lease.check()


def test_a_launcher_gives_back_the_lease_of_its_dead_process_and_nobody_elses(tmp_path):
    claim(tmp_path, "mine")
    release(tmp_path, "yours")
    assert claim(tmp_path) is None
    release(tmp_path, "mine")
    assert claim(tmp_path) is not None


def test_a_heart_that_beats_keeps_a_lease_and_a_dead_ones_is_taken_over_by_one(
    tmp_path, monkeypatch
):
    monkeypatch.setenv(HEARTBEAT, "0.25")
    queue = FORK.Queue()
    owner = FORK.Process(target=hold, args=(str(tmp_path), queue), daemon=True)
    owner.start()
    assert queue.get(timeout=30)
    time.sleep(1.2)  # more than four beats
    assert claim(tmp_path) is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    assert claim(tmp_path) is None, "it may be alive"
    while not find_holder(tmp_path).stale:
        time.sleep(0.05)
    start = FORK.Event()
    rivals = [FORK.Process(target=compete, args=(str(tmp_path), start, queue)) for _ in range(3)]
    for rival in rivals:
        rival.start()
    start.set()
    for rival in rivals:
        rival.join()
    assert queue.get(timeout=5) and queue.empty()
    assert all(rival.exitcode == 0 for rival in rivals)


def test_who_was_stopped_for_too_long_learns_that_the_work_went_on_without_it(tmp_path):
    slow = claim(tmp_path)
    file = next(tmp_path.glob("lease-*.json"))
    os.utime(file, (time.time() - 300,) * 2)
    fast = claim(tmp_path)
    for _ in range(2):
        with pytest.raises(StoreError, match=str(file)):
            slow.check()
    slow.release()
    fast.check()
    assert claim(tmp_path) is None


@pytest.mark.parametrize("shift", [-7200, 7200])
def test_an_age_is_told_by_the_file_systems_clock_and_not_by_this_hosts(
    tmp_path, monkeypatch, shift
):
    claim(tmp_path)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + shift)
    assert claim(tmp_path) is None


@pytest.mark.parametrize(("shift", "held"), [(-10, True), (10, True), (-300, False), (300, False)])
def test_a_lease_of_a_clock_that_was_set_back_is_as_stale_as_an_old_one(tmp_path, shift, held):
    claim(tmp_path)
    (file,) = tmp_path.glob("lease-*.json")
    os.utime(file, (time.time() + shift,) * 2)
    assert (claim(tmp_path) is None) == held


def test_a_lease_without_content_is_that_of_a_process_about_to_write_it(tmp_path):
    (tmp_path / "lease-1.json").touch()
    assert claim(tmp_path) is None
    os.utime(tmp_path / "lease-1.json", (time.time() - 300,) * 2)
    with claim(tmp_path):
        assert set(json.loads((tmp_path / "lease-2.json").read_text())) >= {"host", "user"}


def test_the_holder_of_a_deleted_lease_has_lost_it(tmp_path):
    lease = claim(tmp_path)
    lease._file.unlink()
    lease._look()
    assert lease._lost
