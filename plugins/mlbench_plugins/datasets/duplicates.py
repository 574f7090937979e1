"""Image files with equal bytes, and splits that keep such files together."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench_plugins.datasets.photographs import unreadable

_LOG = logging.getLogger(__name__)


def first_copies(files: Sequence[Path], cache: Path) -> list[int]:
    """For every file, the position of the first file with equal bytes; its own without a copy.

    Only files of equal size are read. Their digests are kept in ``cache`` by path, size and time
    of change, so that an unchanged file is read once.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    try:
        stats = [file.stat() for file in files]
        sizes = Counter(stat.st_size for stat in stats)
        marks = {
            place: f"{files[place].absolute()} {stat.st_size} {stat.st_mtime_ns}"
            for place, stat in enumerate(stats)
            if sizes[stat.st_size] > 1
        }
        memory = cache / f"contents-{_set_name(files)}.json"
        known = _recall(memory) if marks else {}
        digests = {mark: known.get(mark) or _digest(files[i]) for i, mark in marks.items()}
    except OSError as error:
        raise unreadable(Path(str(error.filename)), error) from error
    if not digests.keys() <= known.keys():
        _remember(memory, known | digests)
    first: dict[str, int] = {}
    return [
        first.setdefault(digests[marks[place]], place) if place in marks else place
        for place in range(len(files))
    ]


def together(keys: Sequence[str], *relations: Sequence[str | int | None]) -> list[str]:
    """For every key, the name of its group: keys with an equal entry in a relation share one.

    A group is named by its smallest key, whatever the order of the keys. Entries that are None
    are equal to nothing.
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
    """Draw about ``share`` of the images: bool [N], equal for all images of a group.

    A group is drawn if the first 32 bits of the SHA-256 of ``salt`` and its name, read as a
    fraction, are below ``share``. So adding or removing an image moves no other.
    """
    fractions = [
        int(hashlib.sha256(f"{salt}{group}".encode()).hexdigest()[:8], 16) / 2**32
        for group in groups
    ]
    return np.array(fractions) < share


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _set_name(files: Sequence[Path]) -> str:
    folders = sorted({os.fspath(file.parent.absolute()) for file in files})
    return hashlib.sha256(os.fsencode("\n".join(folders))).hexdigest()[:16]


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
    except OSError as error:
        _LOG.warning("cannot write %s (%s); the next start reads files again", memory, error)
        with suppress(OSError):
            partial.unlink()
