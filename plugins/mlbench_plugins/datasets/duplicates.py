"""Which image files are equal byte for byte, and splits that keep such files together."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError

_LOG = logging.getLogger(__name__)


def first_copies(files: Sequence[Path], cache: Path) -> list[int]:
    """For every file, the place of the first file of equal bytes; its own where it has no copy.

    Only files of equal size can be equal, so only those are read. Their digests are kept in
    ``cache`` by path, size and time of change, and a file that stays as it is is read once, also
    where only some of a folder's files are asked for.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    stats = [_stat(file) for file in files]
    for place, stat in enumerate(stats):
        by_size[stat.st_size].append(place)
    alike = [place for places in by_size.values() if len(places) > 1 for place in places]
    memory = cache / f"contents-{_set_name(files)}.json"
    known = _recall(memory) if alike else {}
    digests: dict[str, str] = {}
    first: dict[str, int] = {}
    copies = list(range(len(files)))
    for place in sorted(alike):
        stat = stats[place]
        mark = f"{files[place].absolute()} {stat.st_size} {stat.st_mtime_ns}"
        digests[mark] = known.get(mark) or _digest(files[place])
        copies[place] = first.setdefault(digests[mark], place)
    if not digests.keys() <= known.keys():
        asked = {str(file.absolute()) for file in files}
        others = {mark: kept for mark, kept in known.items() if _file_of(mark) not in asked}
        _remember(memory, others | digests)
    return copies


def together(keys: Sequence[str], *relations: Sequence[str | int | None]) -> list[str]:
    """For every key, the name of its group: two keys with an equal entry in a relation share one.

    A group is named by its smallest key, so that the name does not depend on the order. None in a
    relation relates to nothing.
    """
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for relation in relations:
        first: dict[str | int, int] = {}
        for i, entry in enumerate(relation):
            if entry is not None:
                a, b = root(first.setdefault(entry, i)), root(i)
                low, high = (a, b) if keys[a] <= keys[b] else (b, a)
                parent[high] = low
    return [keys[root(i)] for i in range(len(keys))]


def drawn(groups: Iterable[str], share: float, salt: str = "") -> NDArray[np.bool_]:
    """Which images a part of about ``share`` holds: bool [N], equal for all images of a group.

    A group is in it if the first 32 bits of the SHA-256 of ``salt`` and its name, read as a
    fraction, are below ``share``. Nothing else counts: an image more or less moves no other.
    """
    fractions = [
        int(hashlib.sha256(f"{salt}{group}".encode()).hexdigest()[:8], 16) / 2**32
        for group in groups
    ]
    return np.array(fractions) < share


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); restore it") from error


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}); give read permission or take it out"
        ) from error


def _set_name(files: Sequence[Path]) -> str:
    folders = sorted({os.fspath(file.parent.absolute()) for file in files})
    return hashlib.sha256(os.fsencode("\n".join(folders))).hexdigest()[:16]


def _file_of(mark: str) -> str:
    return mark.rsplit(" ", 2)[0]


def _recall(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text())
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def _remember(memory: Path, digests: dict[str, str]) -> None:
    partial = memory.with_name(f"{memory.stem}.{os.getpid()}.part")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(digests))
        partial.replace(memory)
    except OSError as error:  # costs time at the next start, nothing more
        _LOG.warning("cannot write %s (%s); the next start reads files again", memory, error)
        with suppress(OSError):
            partial.unlink()
