"""Standard output that is closed, cut off by its reader, or takes few characters."""

import os
import subprocess
import sys
from functools import partial

import pytest

from mlbench.text import command_line

mlbench = partial(subprocess.run, stderr=subprocess.PIPE, text=True)
COMMAND = [sys.executable, "-m", "mlbench"]


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


def test_characters_that_the_output_cannot_take_are_escaped(apart, tmp_path, monkeypatch):
    (tmp_path / "ü" / "runs").mkdir(parents=True)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    apart("status", "--results", "ü").ok(r"0 runs in \xfc")


def test_a_command_with_bytes_that_are_not_utf8_can_be_recorded(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mlbench", "run", "--suite", "\udcff.yaml"])
    assert command_line() == r"mlbench run --suite '\udcff.yaml'"
