"""A results folder that is full, or that nobody may write any more, loses no result."""

import os
import shlex
import subprocess
from contextlib import suppress

import pytest

from mlbench.store import Store
from mlbench.types import StoreError
from tests.executors.test_local import failures
from tests.faults.conftest import board, finished, look_again


@pytest.fixture
def disk(tmp_path):
    """A file system of 170 KiB; where that cannot be had, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=170k", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_takes_empty_files_only_is_full(disk):
    with suppress(OSError):
        (disk / "fill").write_bytes(bytes(2**18))
    with pytest.raises(StoreError, match=r"No space left on device\); free space"):
        Store(disk).assert_writable()


@pytest.mark.slow
def test_a_full_disk_costs_the_runs_that_have_no_room(heads, suite, cli, tmp_path, disk):
    run = ("run", "--suite", suite(plugins=["plain"], seeds=[0, 1, 2, 3, 4]))
    cli(*run, "--results", disk).failed("No space left", code=1)
    before = finished(disk)
    done = len(Store(disk).records())
    assert 0 < done < 5
    told = cli("status", "--results", disk).out
    assert f"5 runs in {disk}: {done} done, {5 - done} failed" in told, "a failure was not kept"
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
    cli(*run, "--results", disk).ok()
    look_again(before, disk)
    cli(*run, "--results", "undisturbed").ok()
    assert board(disk) == board(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_result_that_may_not_be_written_is_put_back_and_a_damaged_one_is_named(
    heads, suite, cli, tmp_path, monkeypatch
):
    run, results = ("run", "--suite", suite(plugins=["locks"])), tmp_path / "results"
    monkeypatch.setenv("FAULT", "now")
    monkeypatch.setenv("FAULT_RESULTS", str(results))
    ended = cli(*run)
    results.chmod(0o755)
    ended.failed("Permission denied", code=1)
    assert "1 run in results: 1 failed" in cli("status").out
    remedy = failures(tmp_path)["locks"].reason.partition("put it back with: ")[2]
    subprocess.run(shlex.split(remedy), check=True)
    (kept,) = Store(results).records()
    assert "1 run in results: 1 done" in cli("status").out
    assert "Nothing is missing" in cli(*run).out
    monkeypatch.delenv("FAULT")
    file = Store(results).file(kept)
    os.truncate(file, 1000)
    cli(*run).failed(file.name)  # a damaged record is not replaced unasked
    file.unlink()
    cli(*run).ok()
    (undisturbed,) = Store(results).records()
    assert kept.average_precision == undisturbed.average_precision
