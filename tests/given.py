"""What not every machine has: files named by an environment variable; folders locked for all."""

import ctypes
import os
from contextlib import contextmanager
from pathlib import Path

import pytest


def path_of(what, content):
    """The path in ``MLBENCH_TEST_<what>``; skips the test where it is not set."""
    if named := os.environ.get(f"MLBENCH_TEST_{what}"):
        return Path(named)
    return pytest.skip(f"MLBENCH_TEST_{what} names no {content}")


_VERSION_3 = 0x20080522
_PASS_OVER = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of Linux


@contextmanager
def locked(place, mode=0):
    """Take the rights of a file or folder away, and this process's right to pass over that."""
    before = Path(place).stat().st_mode
    with _as_anybody():
        Path(place).chmod(mode)
        try:
            yield
        finally:
            Path(place).chmod(before)


@contextmanager
def _as_anybody():
    if os.geteuid() != 0:
        yield
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        asked, told = libc.capget, libc.capset
    except (OSError, AttributeError):
        pytest.skip("an administrator may read everything here")
    head = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, and again for higher bits
    assert asked(head, sets) == 0
    effective = sets[0]
    sets[0] = effective & ~_PASS_OVER
    assert told(head, sets) == 0
    try:
        yield
    finally:
        sets[0] = effective
        assert told(head, sets) == 0
