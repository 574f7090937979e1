"""Find the files of a data set under the folder that ``--data`` names, however they are arranged.

A copy with the folders of the official archives is opened without a search. In any other copy,
lists, annotations and images are found by their file names, in any folder and case.
"""

from __future__ import annotations

import operator
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path, PurePath

from mlbench.files import picture_endings
from mlbench.text import shorten
from mlbench.types import DataError

DEPTH = 6
"""Largest depth of a search, in folders."""
FOLDERS = 20_000
"""Largest number of folders that a search lists; a home folder may hold more."""


class Copy:
    """The files of a data set under a root.

    Args:
        root: the folder that ``--data`` names; None if it was not given.
        what: the data set and its archives, for errors.
        places: folders in which the official files are looked for first, likeliest first.
        others: pattern of names in lower case -> what such files are instead, for errors.

    Raises:
        DataError: no folder was given.
    """

    def __init__(
        self,
        root: Path | None,
        what: str,
        places: Sequence[str] = (".",),
        others: Mapping[str, str] | None = None,
    ) -> None:
        self._remedy = (
            "name the folder that holds it with --data DIR, or see `mlbench data list` for what "
            "`mlbench data fetch NAME --root DIR` gets"
        )
        if root is None:
            raise DataError(f"{what}: no folder was given; {self._remedy}")
        self.root, self.what, self._places, self._others = root, what, places, others or {}

    def find(
        self, *names: str, near: Path | None = None, fits: Callable[[Path], bool] = lambda _: True
    ) -> Path | None:
        """The file or folder of the first of these names that exists; None without one.

        Of several, it is the one closest to ``near``, then the one in the fewest folders.

        Args:
            names: relative paths, which the found path ends in, in any case.
            near: a file of the same copy.
            fits: True for the right path, where others have the same name.

        Raises:
            DataError: several are equally close.
        """
        for place in self._places:
            for name in names:
                if (found := self.root / place / name).exists() and fits(found):
                    return found
        for name in names:
            ranked = sorted(
                (len(found.parts) - 2 * _shared(found.parts, near.parts if near else ()), found)
                for found in filter(fits, self.all(name))
            )
            if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
                two = " and ".join(str(found) for _, found in ranked[:2])
                raise DataError(
                    f"{self.root} holds several copies: {two}; name the folder of one with "
                    "--data DIR"
                )
            if ranked:
                return ranked[0][1]
        return None

    def need(self, *names: str, near: Path | None = None) -> Path:
        """Like ``find``, but raise DataError if there is none."""
        found = self.find(*names, near=near)
        if found is None:
            raise self.lacks(names[0])
        return found

    def home(self, file: Path, inner: str) -> Path:
        """The folder of the archives' contents: a file's folder, or the one above ``inner``."""
        folder = file.parent
        while folder.name.lower() == inner and folder != self.root:
            folder = folder.parent
        return folder

    def lacks(self, name: str, *hints: str) -> DataError:
        """The error for a file that is not there, with what is there instead."""
        seen = [
            f"{shorten(files, 2)}: {meaning}"
            for pattern, meaning in self._others.items()
            if (files := [self._index[n][0] for n in self._index if fnmatchcase(n, pattern)])
        ]
        said = "".join(f"\n  {hint}" for hint in (*hints, *seen))
        return DataError(
            f"{self.what}: {name} not found under {self.root}; {self._remedy}. Looked for "
            f"{self.root / self._places[0] / name} and for that name in every folder{said}"
        )

    def all(self, name: str) -> list[Path]:
        """Every file or folder whose path ends in a name, in any case; shallow ones first."""
        wanted = PurePath(name.lower()).parts
        found = [
            path
            for path in self._index.get(wanted[-1], ())
            if PurePath(str(path).lower()).parts[-len(wanted) :] == wanted
        ]
        return sorted(found, key=lambda path: (len(path.parts), path))

    @cached_property
    def _index(self) -> dict[str, list[Path]]:
        """Name in lower case -> paths of folders, and of files that are not pictures."""
        found = defaultdict(list)
        for folder, folders, files in _walk(self.root):
            others = (file for file in files if not file.lower().endswith(tuple(picture_endings())))
            for name in (*folders, *others):
                found[name.lower()].append(Path(folder, name))
        return found

    def pictures(
        self,
        keys: Sequence[str],
        folders: Sequence[Path],
        remedy: str = "",
        identity: Callable[[str], str] = str.lower,
    ) -> list[Path]:
        """The file of each of N images, wherever under the copy it lies.

        A file that is missing has the path at which the official archives put it.

        Args:
            keys: paths of the images as they are listed, with forward slashes.
            folders: where they officially lie, likeliest first, each as listed or by its name
                alone. The folder of the copy is the deepest one above all of them.
            remedy: what to do if none is there; empty if that is no error.
            identity: file name -> what all names of this image have in common.

        Raises:
            DataError: none is there.
        """
        found = _official(keys, folders)
        home = Path(os.path.commonpath(folders))
        if rest := [key for key in keys if key not in found]:
            found |= _matched(rest, home, identity)
        if rest and not found and home != self.root:
            elsewhere = _matched(rest, self.root, identity)
            # A few files of these names may be of another data set.
            found = elsewhere if 2 * len(elsewhere) > len(keys) else {}
        if rest and not found and remedy:
            raise DataError(
                f"none of the {len(keys):,} listed images is under {home}: {remedy}. Looked for "
                f"the first of them, {keys[0]}, in "
                f"{shorten(list(map(str, filter(Path.is_dir, folders))) or [str(home)])}"
            )
        usual = next((one for one in folders if one != home and one.is_dir()), folders[0])
        return [found.get(key) or usual / key for key in keys]


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through links in the order of names, down to ``DEPTH``; leave out hidden entries."""
    top = len(root.parts)
    for folder, below, files in islice(os.walk(root, followlinks=True), FOLDERS):
        deep = len(Path(folder).parts) - top >= DEPTH
        below[:] = [] if deep else sorted(n for n in below if not n.startswith((".", "__MACOSX")))
        yield folder, below, sorted(name for name in files if not name.startswith("."))


def _official(keys: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Key -> file, for keys whose files lie as listed or, failing that, by their names alone."""
    found: dict[str, Path] = {}
    above = {key.rpartition("/")[0] for key in keys}
    for flat in (False, True):
        for folder in folders:
            here = {part: _listed(folder / part) for part in ([""] if flat else above)}
            for key in keys:
                part, _, name = key.rpartition("/")
                if key not in found and name in here["" if flat else part]:
                    found[key] = folder / (name if flat else key)
            if len(found) == len(keys):
                return found
    return found


def _listed(folder: Path) -> set[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return {entry.name for entry in entries}
    return set()


def _matched(keys: Sequence[str], home: Path, identity: Callable[[str], str]) -> dict[str, Path]:
    """Key -> file below a folder; of several matches, the one whose path is most like the key.

    Keys of one identity each get their own file, as far as there are files.
    """
    wanted = defaultdict(list)
    for key in keys:
        wanted[identity(key.rpartition("/")[2])].append(key)
    there = defaultdict(list)
    for folder, _, files in _walk(home):
        for file in files:
            known = file.lower().endswith(tuple(picture_endings()))
            if known and (name := identity(file)) in wanted:
                there[name].append(Path(folder, file))
    found = {}
    for name, files_of_it in there.items():
        left = list(files_of_it)
        for key in wanted[name]:
            parts = key.lower().split("/")[::-1]
            ranks = [_shared(Path(str(f).lower()).parts[::-1], parts) for f in left or files_of_it]
            best = (left or files_of_it)[ranks.index(max(ranks))]
            found[key] = best
            if best in left:
                left.remove(best)
    return found


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """The number of leading entries that are equal."""
    return sum(takewhile(bool, map(operator.eq, one, other)))
