"""Standard output that is closed, cut off, or takes few characters, and is steered by no text."""

import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.text import Text

from mlbench.cli.console import _Plain, plain
from mlbench.text import command_line
from tests.store.made import made_efficiency, made_predictions, made_record

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


EVIL = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202e"
STEERING = set("\x1b\x07\x9b\u202e\x7f\b")


def test_styles_still_reach_a_terminal():
    file = io.StringIO()
    _Plain(file=file, width=200, force_terminal=True).print(Text("ok" + EVIL, style="red"))
    shown = file.getvalue()
    assert shown.startswith("\x1b[31mok\\x1b[2J") and shown.count("\x1b") == 2


def test_a_bar_still_moves():
    file = io.StringIO()
    with Progress(console=_Plain(file=file, width=80, force_terminal=True)) as progress:
        progress.advance(progress.add_task(EVIL, total=2))
    assert "\x1b[?25l" in file.getvalue() and "\x1b]0;" not in file.getvalue()


@given(st.text())
def test_escaping_is_idempotent_and_keeps_what_is_printable(text):
    assert plain(plain(text)) == plain(text)
    assert not any(c in plain(text) for c in "\x1b\r\x9b")
    printable = "".join(c for c in text if c.isprintable())
    assert plain(printable) == printable


def test_a_record_cannot_steer_a_board(cli, store):
    odd = made_record(
        f"gap{EVIL}", identity=f"coco{EVIL}", efficiency=made_efficiency(device=f"AMD{EVIL}")
    )
    store.write(odd, made_predictions())
    store.write(made_record("gmp", identity="coco", status="diverged", scores=None, error=EVIL))
    told = cli("leaderboard").ok()
    assert not STEERING & set(told.out + told.err), told
