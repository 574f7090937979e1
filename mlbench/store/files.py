"""Files of one run, which are all there or not at all, and what the dead leave of them."""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mlbench.files import safe_name, temporary

Contents = Sequence[tuple[Path, bytes]]
"""Files and what they are to hold, in the order in which they get their names."""


def write_together(contents: Contents) -> None:
    """Put all files on the disk, then give them their names in this order."""
    staged = [(temporary(file), file) for file, _ in contents]
    try:
        for (part, file), (_, data) in zip(staged, contents, strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for part, file in staged:
            part.replace(file)
    finally:
        for part, _ in staged:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def rescue(contents: Contents, root: Path, run_id: str, error: OSError) -> str:
    """Save the result of hours somewhere else, and say where.

    Args:
        contents: files below ``root`` that could not be written.
        root: of the store.
        run_id: whose result it is.
        error: why not.
    """
    said = (
        f"{error.filename or contents[-1][0]}: the result of run {run_id} could not be written "
        f"({error.strerror or error})"
    )
    try:
        shelter = Path(tempfile.mkdtemp(prefix=f"mlbench-rescue-{run_id}-"))
        write_together([(shelter / file.relative_to(root), data) for file, data in contents])
    except OSError as second:
        return (
            f"{said}, nor could it be saved under {tempfile.gettempdir()} "
            f"({second.strerror or second}): it is lost. Make room or give write permission, "
            "then run the same command again; it repeats only this run"
        )
    return (
        f"{said}. It was saved in {shelter} instead. Make room in {root} or give write "
        f"permission, then put it back with: cp -r {shlex.quote(f'{shelter}/records')} "
        f"{shlex.quote(str(root))}/"
    )


def sweep(files: Iterable[Path]) -> None:
    """Remove those of these temporary files that nobody will finish."""
    for file in files:
        with suppress(OSError):  # another process was quicker, or the store is read-only
            if _abandoned(file):
                file.unlink()


def _abandoned(file: Path) -> bool:
    """Its writer was of this machine and is dead, or it is a day old: nothing takes that long."""
    head, _, process = file.name.removesuffix(".tmp").rpartition("-")
    if head.endswith(f".{safe_name(platform.node())}") and process.isdigit() and os.name == "posix":
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
    return time.time() - file.stat().st_mtime > 24 * 3600
