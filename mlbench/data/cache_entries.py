"""The entries of the cache: their contents, purposes and last uses; make room for new ones."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlbench.files import atomic_write
from mlbench.types import DataError, Places

IDENTITY = "identity.json"
"""File that describes a folder of the cache; its modification time is the last use."""

log = logging.getLogger(__name__)


def entry_folder(cache: Path, kind: str, what: str, use: str, identity: Mapping[str, Any]) -> Path:
    """The folder ``cache/kind/<hash of identity>``, created and marked as used now.

    Args:
        cache: the cache.
        kind: kind of entry, such as ``features``.
        what: content in words: "feature maps of train, timm:resnet50".
        use: purpose (``RunSpec.cached_for``).
        identity: everything that the content depends on, for JSON.

    Raises:
        OSError: the folder does not exist and cannot be created.
    """
    canonical = json.dumps(identity, sort_keys=True).encode()
    folder = cache / kind / hashlib.sha256(canonical).hexdigest()[:24]
    folder.mkdir(parents=True, exist_ok=True)
    note = {"what": what, "purpose": use, "identity": identity}
    with suppress(OSError), atomic_write(folder / IDENTITY) as part:  # a cache may be read-only
        part.write_text(json.dumps(note, indent=1), encoding="utf-8")
    return folder


class CacheEntry(NamedTuple):
    """A file or folder of the cache that can be deleted alone.

    Attributes:
        name: path relative to the cache.
        size: bytes on disk.
        used: time of the last use or of creation, in seconds since 1970.
        what, purpose: as in ``entry_folder``; empty if unknown.
        removable: True if it may be deleted to make room; only entries of ``entry_folder`` are.
    """

    name: str
    size: int
    used: float
    what: str
    purpose: str
    removable: bool


def entries(cache: Path) -> list[CacheEntry]:
    """Everything in the cache, least recently used first."""
    found = []
    for top in cache.glob("*"):
        for path in [one for one in top.glob("*") if one.is_dir()] or [top]:
            with suppress(OSError):  # another process may delete it
                files = [file for file in (path, *path.rglob("*")) if file.is_file()]
                if files:
                    found.append(_entry(cache, path, [file.stat() for file in files]))
    return sorted(found, key=lambda entry: entry.used)


def _entry(cache: Path, path: Path, states: Sequence[os.stat_result]) -> CacheEntry:
    size = sum(state.st_blocks * 512 for state in states)
    used = max(max(state.st_mtime, state.st_atime) for state in states)
    note, mark = {}, path / IDENTITY
    if mark.exists():
        used = mark.stat().st_mtime
        with suppress(OSError, ValueError):
            note = json.loads(mark.read_text(encoding="utf-8"))
    what, use = (str(note.get(field, "")) for field in ("what", "purpose"))
    return CacheEntry(str(path.relative_to(cache)), size, used, what, use, mark.exists())


def make_room(places: Places, need: int, what: str, remedy: str) -> None:
    """Delete entries, least recently used first, until ``need`` more bytes fit into the limit.

    Entries that the matrix needs are kept, even beyond the limit. A process with open files of a
    deleted entry can still read them.

    Raises:
        DataError: the disk has less than ``need`` free.
    """
    if places.cache_limit is not None:
        found = entries(places.cache)
        excess = sum(entry.size for entry in found) + need - places.cache_limit
        for entry in found:
            if excess > 0 and entry.removable and entry.purpose not in places.cache_needs:
                log.info("deleting %s (%s) to make room in the cache", entry.name, entry.what)
                shutil.rmtree(places.cache / entry.name, ignore_errors=True)
                excess -= entry.size
        if excess > 0:
            log.warning("the cache takes %.1f GB more than its limit", excess / 1e9)
    free = shutil.disk_usage(places.cache).free
    if need > free:
        raise DataError(
            f"the {what} need {need / 2**20:,.1f} MiB and {places.cache} has "
            f"{free / 2**20:,.1f} MiB free; {remedy}"
        )
