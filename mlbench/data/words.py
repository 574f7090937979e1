"""Word vectors from a file, looked up by name.

Two formats: GloVe's text (``word v1 ... vE`` per line; the first line of a word counts; a header
``count E``, as word2vec writes it, is skipped), and ``.npz`` with the arrays
``names`` [K] and ``vectors`` [K, E], or several such pairs as ``<set>/names``, ``<set>/vectors``.
"""

from __future__ import annotations

import codecs
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError

Vector = NDArray[np.float32]

_JOINTS = re.compile(r"[\s_\-]+")
_HEADER = re.compile(rb"\d+ \d+")
_SPELLED_OUT = {
    "diningtable": "dining table",
    "tvmonitor": "tv monitor",
    "pottedplant": "potted plant",
}
"""VOC's names that join two words without a space."""


@dataclass(frozen=True)
class WordVectors:
    """Vectors [E] of label names, and the way in which each was found.

    Attributes:
        found: label -> its vector.
        averaged: label -> the words whose mean its vector is.
        incomplete: label -> its words without a vector, which the mean leaves out; all its words
            if the label is not in ``found``.
        about: the file's description of itself (an array ``about`` of an .npz), or empty.
    """

    found: Mapping[str, Vector]
    averaged: Mapping[str, tuple[str, ...]]
    incomplete: Mapping[str, tuple[str, ...]]
    about: str = ""


def word_vectors(names: Sequence[str], file: Path) -> WordVectors:
    """Look up the vectors of label names in a file, by name and never by row.

    A label is looked up as a whole, then as the mean of its words. Case is ignored. Spaces,
    underscores and hyphens are ignored in an .npz, and must match in a text file.

    Raises:
        DataError: the file is missing or malformed; the message names the line or the array.
    """
    spelled = {name: _SPELLED_OUT.get(_squeeze(name), name) for name in names}
    words = {name: tuple(w for w in _JOINTS.split(text) if w) for name, text in spelled.items()}
    wanted = {_squeeze(text) for text in (*spelled.values(), *sum(words.values(), ()))}
    try:
        if file.suffix == ".npz":
            table, about = _from_npz(file, wanted)
        else:
            table, about = _from_text(file, spelled, words), ""
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged bytes
        remedy = "give a GloVe text file or an .npz of names and vectors"
        raise DataError(f"{file} cannot be read as word vectors ({error}); {remedy}") from error
    found: dict[str, Vector] = {}
    averaged: dict[str, tuple[str, ...]] = {}
    incomplete: dict[str, tuple[str, ...]] = {}
    for name in names:
        whole = table.get(_squeeze(spelled[name]))
        if whole is not None:
            found[name] = whole
            continue
        known = tuple(word for word in words[name] if _squeeze(word) in table)
        if known:
            found[name] = np.mean([table[_squeeze(w)] for w in known], axis=0, dtype=np.float32)
            averaged[name] = known
        if len(known) < len(words[name]):
            incomplete[name] = tuple(word for word in words[name] if word not in known)
    return WordVectors(found, averaged, incomplete, about)


def _squeeze(name: str) -> str:
    return _JOINTS.sub("", name).casefold()


# ------------------------------------------------------------------------------------------- .npz
def _from_npz(file: Path, wanted: set[str]) -> tuple[dict[str, Vector], str]:
    """The vectors of all groups (the one with most labels wins), and the file's description."""
    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise zipfile.BadZipFile("not a complete zip archive")
        with np.load(stream, allow_pickle=False) as arrays:
            content = {key: arrays[key] for key in arrays.files}
    groups = [_group(file, content, key) for key in content if key.split("/")[-1] == "names"]
    if not groups:
        raise DataError(
            f"{file} holds no word vectors: expected arrays 'names' and 'vectors', or "
            f"'<set>/names' and '<set>/vectors'; it has {', '.join(content) or 'nothing'}"
        )
    widths = sorted({vectors.shape[1] for _, vectors in groups})
    if len(widths) > 1:
        raise DataError(f"{file}: the vectors of its sets are {widths} wide; make them one width")
    table: dict[str, Vector] = {}
    for keys, vectors in sorted(groups, key=lambda g: -len(wanted.intersection(g[0]))):
        for key, vector in zip(keys, vectors, strict=True):
            table.setdefault(key, vector)
    return table, str(content.get("about", ""))


def _group(file: Path, content: Mapping[str, np.ndarray], key: str) -> tuple[list[str], Vector]:
    partner = key.removesuffix("names") + "vectors"
    names, vectors = content[key], content.get(partner)
    if vectors is None:
        raise DataError(f"{file} has the array {key!r} but not {partner!r}")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{file}: {key!r} must be a list of texts, not {names.dtype}{names.shape}")
    if vectors.ndim != 2 or len(vectors) != len(names) or vectors.dtype.kind != "f":
        raise DataError(
            f"{file}: {partner!r} must be floats [{len(names)}, E] for the {len(names)} names, "
            f"not {vectors.dtype} {list(vectors.shape)}"
        )
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(f"{file}: {partner!r} row {row} ({names[row]}) is not finite")
    return [_squeeze(str(name)) for name in names], vectors.astype(np.float32)


# ------------------------------------------------------------------------------------------- text
def _from_text(
    file: Path, spelled: Mapping[str, str], words: Mapping[str, Sequence[str]]
) -> dict[str, Vector]:
    """Read the wanted tokens only; the number of fields is checked in every line."""
    # A running text has tokens such as "hotdog" that are not the label "hot dog", so here the
    # whole name must stand as it is; its words are looked up one by one.
    tokens = {text.casefold(): _squeeze(text) for text in spelled.values()}
    tokens |= {word.casefold(): _squeeze(word) for each in words.values() for word in each}
    table: dict[str, Vector] = {}
    width = 0
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            line = (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).strip()
            if not line or (number == 1 and _HEADER.fullmatch(line)):
                continue
            word, *numbers = line.split(b" ", 1)
            key = tokens.get(word.decode("utf-8", "replace").casefold())
            fields = line.count(b" ")
            width = width or fields
            # more fields belong to a token with spaces; GloVe's 840B has some
            if fields < max(width, 1) or (fields > width and key is not None):
                raise _malformed(file, number, f"{fields} numbers instead of {width or 'some'}")
            if key is not None and key not in table:
                table[key] = _parse(file, number, numbers[0].split(b" "))
    if width == 0:
        raise DataError(f"{file} holds no word vectors; expected lines of 'word v1 ... vE'")
    return table


def _parse(file: Path, number: int, numbers: Sequence[bytes]) -> Vector:
    try:
        vector = np.array([float(text) for text in numbers], dtype=np.float32)
    except ValueError as error:
        raise _malformed(file, number, str(error)) from error
    if not np.isfinite(vector).all():
        raise _malformed(file, number, "a number is not finite")
    return vector


def _malformed(file: Path, number: int, what: str) -> DataError:
    return DataError(f"{file} line {number}: {what}; expected 'word v1 ... vE' as in GloVe's files")
