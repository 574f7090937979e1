"""The contents of a manifest of any form: images by name, their labels, splits and groups."""

from __future__ import annotations

import functools
import posixpath
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from mlbench.files import HEIF, is_picture, picture_endings
from mlbench.text import count, shorten
from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.photographs import HEIF_REMEDY, list_folder, shell_into

_Entries = Mapping[str, Sequence[Path]]
"""Plain name, of a file without its ending -> the entries of a folder with this name."""

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Spelling of a split in a manifest, in lower case -> ``train``, ``val`` or ``test``."""


@dataclass(frozen=True)
class Listing:
    """A manifest as columns, one entry per image.

    Attributes:
        source: the file or folder that was read.
        name: the set's name, for its card.
        folders: where the pictures may be, likeliest first.
        images: N paths as written, relative to one of the folders or absolute.
        names: C labels.
        targets: int8 [N, C] in {1, 0, -1 unknown}.
        splits: N values of ``SPLITS``; None where the manifest names no splits.
        groups: N names of groups, None for an image of its own.
        places: N places in the source, for errors (``line 7``).
        facts: what was read -> how, in words, for ``mlbench data look``.
        doubts: what may be meant otherwise.
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
    facts: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
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

    def files(self) -> tuple[list[Path], str | None, str | None]:
        """The file of every image, an error text if some are missing, and a doubt about others.

        All are from one folder: the first that lacks the fewest. A file whose name differs in case,
        ending or %20 is taken if no other is like it.
        """
        fewest: tuple[list[Path | None], Path] | None = None
        for folder in dict.fromkeys(self.folders):
            found = _found(folder, self.images)
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
        absent = [i for i, file in enumerate(found) if file is None]
        return files, self._missing(folder, absent) if absent else None, self._renamed(files)

    def _renamed(self, files: Sequence[Path]) -> str | None:
        """A doubt about files whose names differ from the manifest's; None if there are none."""
        other = [
            f"{image!r} is {file.name}"
            for image, file in zip(self.images, files, strict=True)
            if _key(image, ()).rpartition("/")[2] != unicodedata.normalize("NFC", file.name)
            and file.name != Path(image).name
        ]
        if not other:
            return None
        return f"{count(len(other), 'name')} not written as the file is: {shorten(other, 3)}"

    def _missing(self, folder: Path, absent: Sequence[int]) -> str:
        names = [self.images[i] for i in absent]
        text = (
            f"{self.source}: {len(names)} of {len(self.images)} pictures are not under {folder}; "
            "put them there, name the folder that they are relative to with --data DIR, or take "
            "them out of the manifest"
        )
        if start := _start_too_much(folder, names):
            escaped = start.replace("\\", "\\\\") if "json" in self.source.suffix else start
            script = "s#" + re.sub(r"([\\.*\[\]^$#])", r"\\\1", escaped) + "##g"
            text += f". They are there without {start!r}: " + shell_into(
                f"sed {shlex.quote(script)} {shlex.quote(str(self.source))}", self.source, "cut"
            )
        listed = [f"{self.images[i]!r} ({self.at(i)})" for i in absent]
        return f"{text}:\n  {shorten(listed, 3, chr(10) + '  ')}"


def _found(folder: Path, images: Sequence[str]) -> list[Path | None]:
    found = [_existing(folder, image) for image in images]
    if None in found and folder.is_dir():
        taken, listed = {*found}, functools.cache(_entries)
        for i, image in enumerate(images):
            if found[i] is None and (file := _like(folder, image, listed)) not in taken:
                taken.add(file)
                found[i] = file
    return found


def _like(folder: Path, image: str, listed: Callable[[Path], _Entries]) -> Path | None:
    """The only file whose path is like that of an image."""
    *above, name = [part for part in image.replace("\\", "/").split("/") if part != "."] or [""]
    place = folder
    for key in (*map(_fold, above), _stem(name)):
        hits = listed(place).get(key, ())
        if len(hits) != 1:
            return None
        (place,) = hits
    return place if place.is_file() else None


def _entries(folder: Path) -> _Entries:
    found: dict[str, list[Path]] = defaultdict(list)
    for entry in list_folder(folder) if folder.is_dir() else ():
        found[_fold(entry.name) if entry.is_dir() else _stem(entry.name)].append(entry)
    return found


def _fold(name: str) -> str:
    """A name in one case and spelling, without %20."""
    return unicodedata.normalize("NFKC", unquote(name)).casefold()


def _stem(name: str) -> str:
    """``_fold`` a name, without a picture's ending and the mark that Label Studio prefixes."""
    text = re.sub(r"^[0-9a-f]{8}-(?=.)", "", _fold(name))
    ending = Path(text).suffix
    return text.removesuffix(ending) if ending in picture_endings() else text


def _start_too_much(folder: Path, images: Sequence[str]) -> str:
    """The prefix of all paths without which their files exist in the folder; else empty."""
    for cut in (found.end() for found in re.finditer(r"[/\\]", images[0])):
        start = images[0][:cut]
        if all(i.startswith(start) and _existing(folder, i[cut:]) for i in images):
            return start
    return ""


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


def pictures_under(folder: Path, passed: Counter[str] | None = None) -> list[Path]:
    """All image files under a folder at any depth, sorted; hidden ones are left out.

    Args:
        folder: where to look. Links to a folder above it are not followed.
        passed: counts the files that are no images, by their ending.

    Raises:
        DataError: a folder cannot be listed.
    """
    found: list[Path] = []
    for entry in list_folder(folder):
        if entry.is_dir():
            if not entry.is_symlink() or not folder.resolve().is_relative_to(entry.resolve()):
                found += pictures_under(entry, passed)
        elif is_picture(entry):
            found.append(entry)
        elif passed is not None:
            passed[entry.suffix.lower() or "without ending"] += 1
    return found


SIDECARS = ".txt .json .jsonl .csv .tsv .xml .yaml .yml .md .rst .html .db .ini .py .names .cache"
"""Endings of files that usually lie beside pictures."""


def passed_over(passed: Counter[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The fact, and the doubt, about files that were passed over."""
    if not passed:
        return {}, ()
    listed = ", ".join(f"{number:,} {ending}" for ending, number in passed.most_common())
    odd = {ending: number for ending, number in passed.items() if ending not in SIDECARS.split()}
    doubts: tuple[str, ...] = ()
    if odd:
        more = ", ".join(f"{number:,} {ending}" for ending, number in odd.items())
        doubts = (f"files passed over, as they are no images that are read here: {more}",)
        if odd.keys() & HEIF:
            doubts = (f"{doubts[0]}; {HEIF_REMEDY}",)
    return {"passed over": listed}, doubts
