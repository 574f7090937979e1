"""Atomic writes: a reader finds the whole file or none, and a failed write leaves nothing."""

import errno
from pathlib import Path

import pytest

from mlbench.files import atomic_write


def test_a_file_appears_when_it_is_complete(tmp_path):
    file = tmp_path / "new" / "a.txt"
    with atomic_write(file) as part:
        part.write_text("first")
        assert not file.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(file) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert file.read_text() == "first" and list(file.parent.iterdir()) == [file]


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"), atomic_write(tmp_path / "a.txt") as part:
        part.write_text("whole")
    assert not list(tmp_path.iterdir())
