"""The predictions of a pack: arrays of known types, from bytes that nobody vouches for."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import PackError, Predictions, RunRecord

Arrays = dict[str, NDArray[Any]]
_TYPES = {"logits": "<f4", "targets": "|i1", "keys": "U", "names": "U", "run_id": "U"}
_DIMENSIONS = {"logits": 2, "targets": 2, "keys": 1, "names": 1, "run_id": 0}
_SPLIT = ("logits", "targets", "keys")
_VALIDATION = "validation_"
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
    """

    predictions: Predictions
    names: tuple[str, ...]
    run_id: str


def dump(predictions: Predictions, record: RunRecord) -> bytes:
    """An .npz that is not compressed: the pack around it is, and no version of zlib changes it."""
    found: Arrays = {
        **_plain(predictions),
        "names": np.array(record.label_names, dtype=np.str_),
        "run_id": np.array(record.run_id),
    }
    if predictions.validation is not None:
        found |= {_VALIDATION + name: a for name, a in _plain(predictions.validation).items()}
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
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > limit:
                raise PackError(f"would unpack to more than {limit:,} bytes; nothing was read")
            held = [m.filename.removesuffix(".npy") for m in archive.infolist()]
            wanted = [*_TYPES, *(_VALIDATION + name for name in _SPLIT)]
            found = {name: _array(archive, name) for name in wanted if name in held}
    except _DAMAGES as error:
        raise PackError(f"is damaged ({type(error).__name__}: {error})") from error
    for name in _TYPES:
        if name not in found:
            raise PackError(f"has no array {name}")
    validation = None
    if any(name.startswith(_VALIDATION) for name in found):
        validation = _predictions(found, _VALIDATION, None)
    return Predicted(
        _predictions(found, "", validation),
        tuple(found["names"].tolist()),
        str(found["run_id"]),
    )


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    raw = io.BytesIO(archive.read(f"{name}.npy"))
    array: NDArray[Any] = np.lib.format.read_array(raw, allow_pickle=False)
    plain = name.removeprefix(_VALIDATION)
    kind, axes = _TYPES[plain], _DIMENSIONS[plain]
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
