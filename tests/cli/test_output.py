"""Standard output that is closed, cut off by its reader, or takes few characters."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from mlbench.text import command_line

mlbench = partial(subprocess.run, stderr=subprocess.PIPE, text=True)
COMMAND = [sys.executable, "-m", "mlbench"]
FULL = Path("/dev/full")


def test_no_standard_output_is_no_error():
    ended = mlbench(["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "--version"])
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("asked", [("--version",), ("show", "gap")])
def test_a_reader_that_closes_the_pipe_is_no_error(asked):
    read, write = os.pipe()
    os.close(read)
    ended = mlbench([*COMMAND, *asked], stdout=write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
@pytest.mark.parametrize("asked", [("--version",), ("show", "gap"), ("list", "--json")])
def test_a_full_disk_under_the_output_is_one_error(asked):
    with FULL.open("w") as full:
        ended = mlbench([*COMMAND, *asked], stdout=full)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: standard output") and ended.stderr.count("\n") == 1


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_under_the_log_ends_no_command():
    with FULL.open("w") as full:
        ended = subprocess.run([*COMMAND, "show", "gapp"], stderr=full)
    assert ended.returncode == 2


def test_want_of_memory_outside_a_run_is_one_error(install, cli):
    torchs = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 9 GiB"
    source = f"import torch\ndef big():\n    raise torch.OutOfMemoryError({torchs!r})\n"
    install("acme", source, "[mlbench.commands]\nbig = acme:big")
    said = "error: CUDA out of memory. Tried to allocate 2.00 GiB; give a smaller --batch-size"
    assert said in cli("big").failed().err


def test_characters_that_the_output_cannot_take_are_escaped(apart, tmp_path, monkeypatch):
    (tmp_path / "ü" / "runs").mkdir(parents=True)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    apart("status", "--results", "ü").ok(r"0 runs in \xfc")


def test_a_command_with_bytes_that_are_not_utf8_can_be_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mlbench", "run", "--suite", "\udcff.yaml"])
    assert command_line() == r"mlbench run --suite '\udcff.yaml'"
