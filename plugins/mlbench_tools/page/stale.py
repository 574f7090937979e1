"""Pages of an earlier build whose runs and methods are gone."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from mlbench_tools.page.templating import MARK

HEAD = 512
"""Bytes of a page in which the mark must stand, so that no text further below can bear it."""


def remove_stale(folder: Path, written: Collection[Path]) -> None:
    """Remove the pages that an earlier build wrote and this one did not; never a file of others.

    Args:
        folder: holds pages of one kind.
        written: by this build.

    Raises:
        OSError: a page cannot be removed.
    """
    for file in folder.glob("*.html"):
        if file not in written and _ours(file):
            file.unlink()


def _ours(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return MARK.encode() in stream.read(HEAD)
    except PermissionError:  # we wrote nothing that we may not read
        return False
