"""The archive of a run's predictions."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mlbench.store.influence import derive, members
from mlbench.types import MeasureError, Predictions, RunRecord, StoreError

Arrays = Mapping[str, NDArray[Any]]

HELD_OUT = "validation_"
"""What the names of the validation split's arrays begin with."""
AT_ONCE = 1 << 18
"""Bytes of one reading."""
DAMAGE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises."""


def damaged(file: Path, error: Exception) -> StoreError:
    """A message for predictions that cannot be read."""
    return StoreError(
        f"{file}: damaged predictions ({reason(error)}); restore the file, or "
        "delete it and its record and run again"
    )


def reason(error: Exception) -> str:
    """Why an archive cannot be read; numpy's own words advise to load it unsafely."""
    if isinstance(error, ValueError) and "pickle" in str(error):
        return "no archive of plain arrays"
    return f"{type(error).__name__}: {error}"


@contextmanager
def in_parts(file: Path) -> Iterator[BinaryIO]:
    """A file of which some places are read: no more comes from the disk than is asked for.

    Left alone, a system reads up to megabytes ahead at each place: a board of 2,000 COCO runs would
    take 8 GB from the disk for the 0.5 GB that it needs.
    """
    with file.open("rb", buffering=AT_ONCE) as stream:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        yield stream


@contextmanager
def opened(file: Path, record: RunRecord) -> Iterator[Arrays]:
    """The arrays of a run's archive, each decompressed when it is asked for.

    Raises:
        StoreError: the file is missing or damaged.
    """
    try:
        with in_parts(file) as stream, np.load(stream, allow_pickle=False) as arrays:
            yield arrays
    except FileNotFoundError as error:
        raise StoreError(
            f"{file}: run {record.run_id} ({record.status}) has no predictions; "
            "delete its record and run it again to get them"
        ) from error
    except DAMAGE as error:
        raise damaged(file, error) from error


def pack(predictions: Predictions, record: RunRecord) -> bytes:
    """An archive of what a run predicted, with what follows from it.

    Raises:
        StoreError: the predictions do not fit the record.
    """
    arrays = _arrays(predictions, record)
    arrays["names"] = np.array(record.label_names, dtype=np.str_)
    if predictions.validation is not None:
        arrays |= _arrays(predictions.validation, record, HELD_OUT)
    if record.scores is not None:
        with suppress(MeasureError):  # the result of hours is kept, whatever is odd about it
            arrays |= members(derive(predictions, record.label_names))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(arrays: Arrays) -> Predictions:
    """The predictions of an archive, on the test split and the validation split it may have."""
    held_out = _split(arrays, HELD_OUT) if f"{HELD_OUT}keys" in arrays else None
    return replace(_split(arrays), validation=held_out)


def _arrays(
    predictions: Predictions, record: RunRecord, prefix: str = ""
) -> dict[str, NDArray[Any]]:
    n, c = len(predictions.keys), len(record.label_names)
    if predictions.logits.shape != (n, c) or predictions.targets.shape != (n, c):
        raise StoreError(
            f"predictions of run {record.run_id}: {prefix}logits {predictions.logits.shape} and "
            f"targets {predictions.targets.shape} must be [{n} keys, {c} labels]"
        )
    return {
        f"{prefix}logits": predictions.logits.astype(np.float32, copy=False),
        f"{prefix}targets": predictions.targets.astype(np.int8, copy=False),
        f"{prefix}keys": np.array(predictions.keys, dtype=np.str_),
    }


def _split(arrays: Arrays, prefix: str = "") -> Predictions:
    logits, targets, keys = (arrays[f"{prefix}{name}"] for name in ("logits", "targets", "keys"))
    return Predictions(logits, targets, tuple(keys.tolist()))
