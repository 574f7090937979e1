"""Atomic writes: a reader finds the whole file or none, and a failed write leaves nothing."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from mlbench.files import ABANDONED, atomic_write, read_checked, sweep, write_checked


def test_a_file_appears_when_it_is_complete(tmp_path, monkeypatch):
    file = tmp_path / "new" / "a.txt"
    with atomic_write(file) as part:
        part.write_text("first")
        assert not file.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(file) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]

    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"), atomic_write(file.parent / "b.txt") as part:
        part.write_text("whole")
    assert list(file.parent.iterdir()) == [file], "a failed rename leaves nothing"


def test_a_checked_file_is_read_whole_or_not_at_all(tmp_path, caplog):
    file, content = tmp_path / "cache" / "a.checked", b"what was worked out"
    assert read_checked(file) is None and not caplog.records
    write_checked(file, content)
    stored, rng = file.read_bytes(), np.random.default_rng(0)
    assert read_checked(file) == content
    flipped = [bytearray(stored) for _ in range(8 * len(stored))]
    for bit, each in enumerate(flipped):
        each[bit // 8] ^= 1 << bit % 8
    cut = [stored[:length] for length in range(len(stored))]
    for damaged in (*flipped, *cut, stored + b"x", stored[::-1], *map(rng.bytes, range(99))):
        file.write_bytes(damaged)
        caplog.clear()
        assert read_checked(file) is None
        assert [f"{file} is damaged; making it again"] == caplog.messages


def test_only_what_was_left_long_ago_is_swept(tmp_path):
    old = time.time() - ABANDONED - 60
    for name in (".a.tmp", ".b.tmp/inside/file", ".c.tmp/inside/new", ".d.tmp", "kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for path in tmp_path.rglob("*"):
        if path.name not in ("new", ".d.tmp"):
            os.utime(path, (old, old))
    sweep(tmp_path.glob(".*.tmp"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.tmp", ".d.tmp", "kept"]
