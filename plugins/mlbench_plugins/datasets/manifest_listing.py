"""What a manifest of any form says: its images by name, their labels, splits and groups."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.text import shorten
from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.photographs import is_picture, list_folder

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""How a manifest may spell a split, in lower case -> ``train``, ``val`` or ``test``."""


@dataclass(frozen=True)
class Listing:
    """A manifest as columns, one entry per image.

    Attributes:
        source: the file or folder that was read.
        name: of the set, for its card.
        folders: where the pictures may be, likeliest first.
        images: N paths as written, relative to one of the folders or absolute.
        names: C labels.
        targets: int8 [N, C] in {1, 0, -1 unknown}.
        splits: N values of ``SPLITS``; None where the manifest names no splits.
        groups: N names of groups, None for an image of its own.
        places: N places in the source, for errors (``line 7``).
        unused: columns of a table without a meaning here.
        objects: int32 [N, C] annotated objects of each label; None for labels of whole images.
    """

    source: Path
    name: str
    folders: tuple[Path, ...]
    images: Sequence[str]
    names: tuple[str, ...]
    targets: Targets
    splits: Sequence[str] | None = None
    groups: Sequence[str | None] | None = None
    places: Sequence[str] | None = None
    unused: tuple[str, ...] = ()
    objects: NDArray[np.int32] | None = None

    def at(self, image: int) -> str:
        """Where the source lists an image."""
        return self.places[image] if self.places else repr(self.images[image])

    def keys(self) -> list[str]:
        """A key per image: its path with slashes, relative to a folder of pictures if possible.

        Raises:
            DataError: two entries name the same picture, in one split or in two.
        """
        places = [place for f in self.folders for place in (f.absolute(), f.resolve())]
        starts = [place.as_posix().rstrip("/") + "/" for place in places]
        first: dict[str, int] = {}
        for i, image in enumerate(self.images):
            key = _key(image, starts)
            if key in first:
                raise DataError(
                    f"{self.source}: {self.at(first[key])} and {self.at(i)} name the same picture "
                    f"{key!r}; put all labels of a picture into one entry, in one split"
                )
            first[key] = i
        return list(first)

    def files(self) -> tuple[list[Path], str | None]:
        """The file of every image, and an error text if some are missing.

        All are from one folder: the first that lacks the fewest.
        """
        fewest: tuple[list[Path | None], Path] | None = None
        for folder in dict.fromkeys(self.folders):
            found = [_existing(folder, image) for image in self.images]
            if fewest is None or found.count(None) < fewest[0].count(None):
                fewest = found, folder
            if None not in found:
                break
        assert fewest is not None, "a listing names at least one folder"
        found, folder = fewest
        files = [
            folder / image.replace("\\", "/") if file is None else file
            for image, file in zip(self.images, found, strict=True)
        ]
        absent = [f"{self.images[i]!r} ({self.at(i)})" for i, f in enumerate(found) if f is None]
        if not absent:
            return files, None
        return files, (
            f"{self.source}: {len(absent)} of {len(files)} pictures are not under {folder}; "
            "put them there, name the folder that they are relative to with --data DIR, or take "
            "them out of the manifest:\n  " + shorten(absent, 3, "\n  ")
        )


def _key(image: str, starts: Iterable[str]) -> str:
    """One spelling per file: composed accents, slashes, no ``./``, relative if possible."""
    key = posixpath.normpath(unicodedata.normalize("NFC", image.replace("\\", "/")))
    for start in starts:
        key = key.removeprefix(unicodedata.normalize("NFC", start))
    return key


def _existing(folder: Path, image: str) -> Path | None:
    """The file of an image; Windows writes backslashes, macOS decomposes accents."""
    slashed = image.replace("\\", "/")
    forms = (image, slashed, *(unicodedata.normalize(f, slashed) for f in ("NFC", "NFD")))
    return next((folder / form for form in dict.fromkeys(forms) if (folder / form).is_file()), None)


def matrix(labels: Sequence[Iterable[str]], names: Sequence[str]) -> Targets:
    """Lists of present labels as int8 [N, C] in {1, 0}."""
    column = {name: c for c, name in enumerate(names)}
    targets_NC = np.zeros((len(labels), len(names)), np.int8)
    for row, present in enumerate(labels):
        targets_NC[row, [column[name] for name in present]] = 1
    return targets_NC


def pictures_under(folder: Path) -> list[Path]:
    """All image files under a folder at any depth, sorted; hidden ones are left out.

    Raises:
        DataError: a folder cannot be listed.
    """
    found: list[Path] = []
    for entry in list_folder(folder):
        if entry.is_dir():
            found += pictures_under(entry)
        elif is_picture(entry):
            found.append(entry)
    return found
