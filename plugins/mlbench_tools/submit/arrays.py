"""The predictions of a pack: arrays of known types, from bytes that nobody vouches for."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mlbench.store import Influence, influence_arrays, read_influence
from mlbench.types import PackError, Predictions, RunRecord

Arrays = dict[str, NDArray[Any]]
_TYPES = {"logits": "<f4", "targets": "|i1", "keys": "U", "names": "U", "run_id": "U"}
_DIMENSIONS = {"logits": 2, "targets": 2, "keys": 1, "names": 1, "run_id": 0}
_INFLUENCE = {
    "influence": ("<f4", 1),
    "influence_of": ("U", 0),
    "influence_mAP": ("<f8", 0),
    "influence_version": ("<i8", 0),
}
"""Type and number of axes of what follows from the predictions; older packs have none of it."""
_SPLIT = ("logits", "targets", "keys")
_VALIDATION = "validation_"
_END = 22
"""Bytes of the record that ends a zip without a comment."""
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, EOFError, MemoryError, OverflowError),
    *(NotImplementedError, RuntimeError, ValueError, SyntaxError, TypeError),
)
"""What numpy and zipfile raise on bytes that they cannot make sense of."""


@dataclass(frozen=True)
class Predicted:
    """The arrays as they stand there: types and numbers of axes are right, the rest is open.

    Attributes:
        names: of the columns, as the predictions say.
        run_id: of the run that predicted, as the predictions say.
        influence: what each image is said to do to mAP; None in packs that are older than this.
    """

    predictions: Predictions
    names: tuple[str, ...]
    run_id: str
    influence: Influence | None = None


def dump(predictions: Predictions, record: RunRecord, influence: Influence | None = None) -> bytes:
    """An .npz that is not compressed: the pack around it is, and no version of zlib changes it."""
    found: Arrays = {
        **_plain(predictions),
        "names": np.array(record.label_names, dtype=np.str_),
        "run_id": np.array(record.run_id),
    }
    if predictions.validation is not None:
        found |= {_VALIDATION + name: a for name, a in _plain(predictions.validation).items()}
    if influence is not None:
        found |= influence_arrays(influence)
    buffer = io.BytesIO()
    np.savez(buffer, **found)  # type: ignore[arg-type] # numpy's stub sees allow_pickle in **
    return buffer.getvalue()


def _plain(predictions: Predictions) -> Arrays:
    return {
        "logits": predictions.logits.astype("<f4", copy=False),
        "targets": predictions.targets.astype(np.int8, copy=False),
        "keys": np.array(predictions.keys, dtype=np.str_),
    }


def load(data: bytes, limit: int) -> Predicted:
    """The arrays of an .npz.

    Args:
        data: the file.
        limit: bytes that it may unpack to.

    Raises:
        PackError: it is damaged, holds more than ``limit``, or lacks an array or has one of another
            type; to be read behind the name of the file.
    """
    try:
        with io.BytesIO(data) as stream, zipfile.ZipFile(stream) as archive:
            if sum(member.file_size for member in archive.infolist()) > limit:
                raise PackError(f"would unpack to more than {limit:,} bytes; nothing was read")
            _refuse_strange(stream, archive)
            found = {
                name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()
            }
    except _DAMAGES as error:
        raise PackError(f"is damaged ({type(error).__name__}: {error})") from error
    for name in (*_TYPES, *(_INFLUENCE if _INFLUENCE.keys() & found.keys() else ())):
        if name not in found:
            raise PackError(f"has no array {name}")
    validation = None
    if any(name.startswith(_VALIDATION) for name in found):
        validation = _predictions(found, _VALIDATION, None)
    return Predicted(
        _predictions(found, "", validation),
        tuple(found["names"].tolist()),
        str(found["run_id"]),
        read_influence(found),
    )


def _refuse_strange(stream: IO[bytes], archive: zipfile.ZipFile) -> None:
    known = {*_TYPES, *_INFLUENCE, *(_VALIDATION + name for name in _SPLIT)}
    names = [member.orig_filename for member in archive.infolist()]
    for name in names:
        if name.removesuffix(".npy") not in known or not name.endswith(".npy"):
            raise PackError(f"has {name!r}, which has no place among predictions")
        if names.count(name) > 1:
            raise PackError(f"has {name!r} {names.count(name)} times; which counts?")
    if text := around(stream, archive):
        raise PackError(f"holds {text}")


def around(stream: IO[bytes], archive: zipfile.ZipFile) -> str:
    """What a zip's file holds that is none of its members, in words; empty if there is nothing."""
    if min((member.header_offset for member in archive.infolist()), default=0):
        return "bytes before its first member"
    stream.seek(-_END, io.SEEK_END)
    if archive.comment or stream.read(4) != b"PK\5\6":
        return "bytes after its last member"
    return ""


def _array(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    name, raw = member.removesuffix(".npy"), io.BytesIO(archive.read(member))
    try:
        array: NDArray[Any] = np.lib.format.read_array(raw, allow_pickle=False)
    except ValueError as error:  # numpy's own words advise to load it all the same
        raise PackError(f"has {name} that is no array of plain numbers or texts") from error
    plain = name.removeprefix(_VALIDATION)
    kind, axes = _INFLUENCE.get(plain) or (_TYPES[plain], _DIMENSIONS[plain])
    # An empty text has no size, so that a few bytes can say that there are any number of them.
    text = array.dtype.kind == "U" and array.dtype.itemsize > 0
    if not (text if kind == "U" else array.dtype.str == kind):
        raise PackError(f"has {name} of type {array.dtype}, not {np.dtype(kind)}")
    if array.ndim != axes:
        raise PackError(f"has {name} of shape {array.shape}, not of {axes} axes")
    return array


def _predictions(found: Arrays, prefix: str, validation: Predictions | None) -> Predictions:
    for name in _SPLIT:
        if prefix + name not in found:
            raise PackError(f"has no array {prefix + name}")
    logits, targets, keys = (found[prefix + name] for name in _SPLIT)
    return Predictions(logits, targets, tuple(keys.tolist()), validation)
