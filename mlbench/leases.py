"""Leases: which process of which machine does a piece of work, on any shared file system.

A folder holds ``lease-1.json``, ``lease-2.json`` and so on, and the last one counts. A process that
wants the work creates the next number with ``O_EXCL``, in which only one can succeed, over NFS too.
The holder touches its file every few seconds. A lease that was not touched for four beats is stale;
its age is measured by the clock of the file system, so hosts' clocks need not agree. No file is
renamed, deleted or locked, so a slow process can never remove the lease of its successor.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from mlbench.types import StoreError

HEARTBEAT = "MLBENCH_HEARTBEAT"
"""Environment variable: seconds between two beats; 15 by default."""
BEATS = 4
"""Number of missed beats after which a lease is stale."""
GIVEN_BACK = b"\ngiven back"
"""The last bytes of a lease that was given back."""


class LeaseLostError(StoreError):
    """Another process has taken over what this one was doing."""


@dataclass(frozen=True)
class Holder:
    """Who has a lease.

    Attributes:
        token: random, made by the launcher or by ``claim``.
        host, user: names for messages.
        since: time of the claim, ISO 8601 in UTC.
        beat: seconds between two beats.
        stale: True if it missed its beats; ``claim`` then takes it over.
    """

    token: str
    host: str
    user: str
    since: str
    beat: float
    stale: bool = False

    def __str__(self) -> str:
        return f"{self.user}@{self.host} since {self.since}"


class Lease:
    """A lease that this process holds, and the thread that keeps it fresh."""

    def __init__(self, file: Path, holder: Holder) -> None:
        number = int(file.stem.partition("-")[2])
        self._file, self._next = file, _file(file.parent, number + 1)
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._keep_fresh, args=(holder.beat,), daemon=True)
        self._thread.start()

    def assert_held(self) -> None:
        """Raise ``LeaseLostError`` if another process has taken the lease over.

        It accesses no file, so a run may call it at every step.
        """
        if self._lost:
            raise LeaseLostError(
                f"{self._file}: another process took this work over, as this one had not answered "
                "for too long; its result will be kept, and this one is dropped"
            )

    def check(self) -> None:
        """Like ``assert_held``, but ask the file system first."""
        self._look()
        self.assert_held()

    def release(self) -> None:
        """Give the lease back; anybody may claim it at once."""
        self._ended.set()
        self._thread.join()
        _free(self._file)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _keep_fresh(self, seconds: float) -> None:
        while not self._ended.wait(seconds) and not self._lost:
            self._look()

    def _look(self) -> None:
        try:
            os.utime(self._file)
            self._lost = self._next.exists()
        except FileNotFoundError:
            self._lost = True
        except OSError:  # the server is away for now; what it says later counts
            pass


def claim(folder: Path, token: str | None = None) -> Lease | None:
    """Claim the work of a folder; None if another process holds it.

    The folder is created if it does not exist. The token names the claim, for ``release``.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    me = Holder(token or uuid4().hex, socket.gethostname(), _user(), now, _beat())
    number, holder = _last(folder)
    while holder is None or holder.stale:
        number += 1
        file = _file(folder, number)
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            holder = _read(file)
            continue
        try:
            content = {name: value for name, value in asdict(me).items() if name != "stale"}
            os.write(descriptor, json.dumps(content).encode())
            os.fsync(descriptor)
        except OSError:
            _free(file)
            raise
        finally:
            os.close(descriptor)
        return Lease(file, me)
    return None


def find_holder(folder: Path) -> Holder | None:
    """The holder of a folder's work, which may be stale; None if the work was given back."""
    return _last(folder)[1]


def release(folder: Path, token: str) -> None:
    """Give back the lease of this token, whose process died without doing so."""
    number, holder = _last(folder)
    if holder is not None and holder.token == token:
        _free(_file(folder, number))


def _last(folder: Path) -> tuple[int, Holder | None]:
    """The number of the last lease, 0 without any, and its holder."""
    number = max((int(f.stem.partition("-")[2]) for f in folder.glob("lease-*.json")), default=0)
    return number, _read(_file(folder, number)) if number else None


def _read(file: Path) -> Holder | None:
    """The holder of this lease; None if it was given back."""
    with file.open("rb") as stream:  # opening makes an NFS client ask its server
        content, touched = stream.read(), os.fstat(stream.fileno()).st_mtime
    if touched == 0 or content.endswith(GIVEN_BACK):  # a copied file has another time
        return None
    try:
        holder = Holder(**json.loads(content))
    except (ValueError, TypeError):  # its owner is about to write it, or died before
        holder = Holder("", "?", "?", "?", _beat())
    age = _clock(file.parent) - touched  # below zero if the clock was set back
    return replace(holder, stale=abs(age) > BEATS * holder.beat)


def _clock(folder: Path) -> float:
    """The time of the file system, or of this host where a folder cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def _file(folder: Path, number: int) -> Path:
    return folder / f"lease-{number}.json"


def _free(file: Path) -> None:
    """Mark a lease as given back, by content and time; it becomes stale if neither can be set."""
    with suppress(OSError), file.open("ab") as stream:
        stream.write(GIVEN_BACK)
    with suppress(OSError):
        os.utime(file, (0, 0))


def _beat() -> float:
    return float(os.environ.get(HEARTBEAT, "15"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())
