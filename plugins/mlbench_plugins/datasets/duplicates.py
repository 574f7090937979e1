"""Image files with equal bytes, and splits that keep such files together."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.files import read_checked, sha256, write_checked

_LOG = logging.getLogger(__name__)


def first_copies(
    files: Sequence[Path], cache: Path, among: Sequence[int] | None = None
) -> list[int]:
    """For every file, the position of the first file with equal bytes; its own without a copy.

    Only files of equal size are read. Their digests are kept in ``cache`` by path, size and time
    of change, so that an unchanged file is read once.

    Args:
        files: N files.
        cache: folder of the digests.
        among: positions of the files to compare, by default all; the others have no copy.
    """
    stats = {i: files[i].stat() for i in (range(len(files)) if among is None else among)}
    sizes = Counter(stat.st_size for stat in stats.values())
    marks = {
        i: f"{files[i].absolute()} {stat.st_size} {stat.st_mtime_ns}"
        for i, stat in stats.items()
        if sizes[stat.st_size] > 1
    }
    folders = sorted({os.fspath(files[i].parent.absolute()) for i in stats})
    name = hashlib.sha256(os.fsencode("\n".join(folders))).hexdigest()[:16]
    memory = cache / f"contents-{name}.checked"
    content = read_checked(memory) if marks else None
    known: dict[str, str] = {} if content is None else json.loads(content)
    digests = {mark: known.get(mark) or sha256(files[i]) for i, mark in marks.items()}
    if not digests.keys() <= known.keys():
        try:
            write_checked(memory, json.dumps(known | digests).encode())
        except OSError as error:
            _LOG.warning("cannot write %s (%s); the next start reads files again", memory, error)
    first: dict[str, int] = {}
    return [first.setdefault(digests[marks[i]], i) if i in marks else i for i in range(len(files))]


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
