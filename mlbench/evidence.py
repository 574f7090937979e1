"""A record and its predictions as bytes, sealed with digests so that changes are found.

A record holds the SHA-256 of itself (``digest``) and of each array of its predictions
(``predictions_sha256``), which are compared before numpy parses them. So a board checks the
influences that it reads, without the logits; their checksums in the archive's directory have a
digest, too. Digests find damage and edits, not a forger who recomputes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mlbench.metrics.paired import Influence, derive_influence
from mlbench.text import first_error
from mlbench.types import MeasureError, ModelCost, Predictions, RunRecord, StoreError, Value

VALIDATION = "validation_"
"""Prefix of the validation split's arrays in an archive."""
INFLUENCE_VERSION = 1
"""Raised when equal predictions give other influences, so that stored ones are not read."""
DIRECTORY = "directory"
"""Name of the digest of an archive's list of arrays."""
RESTORE = "restore the file, or delete it and run again"
"""Advice for a record that cannot be used."""


# ---------------------------------------------------------------------------------------- records
def seal(record: RunRecord, archive: bytes | None) -> RunRecord:
    """Return the record with new digests of its predictions, as ``pack`` makes them, and itself."""
    found = {} if archive is None else sha256_of_arrays(archive)
    record = record.model_copy(update={"predictions_sha256": found})
    return record.model_copy(update={"digest": record_digest(to_json(record))})


def to_json(record: Value) -> bytes:
    """Return the bytes of a record's file, or of a measurement's."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def record_digest(data: bytes) -> str:
    """Return the SHA-256 of a record's canonical JSON without ``digest``.

    It is computed from the JSON, not from the parsed record, so that later fields do not change it.
    """
    plain = {name: value for name, value in json.loads(data).items() if name != "digest"}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_record(data: bytes, source: object) -> RunRecord:
    """Read a record from JSON and compare it with its digest.

    Raises:
        StoreError: this is not a record, or it was changed since it was written.
    """
    try:
        record, computed = RunRecord.model_validate_json(data), record_digest(data)
    except Exception as error:  # json raises several types on damaged bytes
        reason = first_error(error) if isinstance(error, ValidationError) else error
        raise StoreError(f"{source}: not a record of this mlbench ({reason}); {RESTORE}") from error
    if record.digest != computed:
        was = f"its digest is {record.digest[:16]}..." if record.digest else "it has no digest"
        raise StoreError(
            f"{source}: changed since it was written ({was}, and that of its content is "
            f"{computed[:16]}...); {RESTORE}"
        )
    if record.run_id != record.spec.run_id:
        found = f"run {record.run_id} has the settings of run {record.spec.run_id}"
        raise StoreError(f"{source}: {found}; {RESTORE}")
    return record


def read_cost(file: Path) -> ModelCost:
    """Read a measurement and compare it with its digest.

    Raises:
        StoreError: the file cannot be read, is no measurement, or was changed since it was written.
    """
    try:
        data = file.read_bytes()
        cost, why = ModelCost.model_validate_json(data), "changed after it was written"
        if cost.digest == record_digest(data):
            return cost
    except (OSError, ValidationError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else str(error)
    remedy = "delete it and run `mlbench measure`"
    raise StoreError(f"{file}: not a measurement ({why}); {remedy}")


# --------------------------------------------------------------------------------------- archives
class SealedArrays:
    """The arrays of an archive, read on demand and compared with the SHA-256 of each as .npy."""

    def __init__(self, file: zipfile.ZipFile, sha256: Mapping[str, str] | None = None) -> None:
        self._file, self._sha256 = file, sha256
        self.directory = sorted(f"{m.filename} {m.CRC} {m.file_size}" for m in file.infolist())
        self._compare(DIRECTORY, "\n".join(self.directory).encode())

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Read an array; raise ``StoreError`` if it is not the one that was written."""
        data = self._compare(name, self._file.read(f"{name}.npy"))
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return array

    def __contains__(self, name: object) -> bool:
        return f"{name}.npy" in self._file.namelist()

    def _compare(self, name: str, data: bytes) -> bytes:
        known = self._sha256
        if known is not None and known.get(name) != hashlib.sha256(data).hexdigest():
            raise StoreError(f"its {name} is not what the record beside it was made with")
        return data


Arrays = SealedArrays | Mapping[str, NDArray[Any]]


@contextmanager
def open_arrays(file: Path, record: RunRecord) -> Iterator[SealedArrays]:
    """Open the archive of a record's predictions; its arrays are read on demand.

    The system's read-ahead is switched off: a board of 2,000 COCO runs would otherwise read 8 GB
    for the 0.5 GB that it needs.

    Raises:
        StoreError: the file is missing, damaged or not the record's, also if this shows only inside
            the block.
    """
    remedy = "restore the file, or delete it and its record and run again"
    sha256 = record.predictions_sha256 if record.digest else None  # it is not sealed yet
    try:
        with file.open("rb", buffering=1 << 18) as stream:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            with zipfile.ZipFile(stream) as archive:
                yield SealedArrays(archive, sha256)
    except FileNotFoundError as error:
        raise StoreError(
            f"{file}: run {file.stem} has no predictions; "
            "delete its record and run it again to get them"
        ) from error
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged bytes
        damaged = f"damaged predictions ({type(error).__name__})"
        reason = error if isinstance(error, StoreError) else damaged
        raise StoreError(f"{file}: {reason}; {remedy}") from error


def sha256_of_arrays(archive: bytes) -> dict[str, str]:
    """Return name -> SHA-256 of each array of an archive as .npy, and of the list of arrays."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        contents = {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}
        contents[DIRECTORY] = "\n".join(SealedArrays(file).directory).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}


def pack(predictions: Predictions, record: RunRecord) -> bytes:
    """The archive of a run's predictions and their influence; raises as ``prediction_arrays``."""
    arrays = prediction_arrays(predictions, record)
    if record.scores is not None:
        with suppress(MeasureError):  # predictions are kept even if they cannot be scored
            found = derive_influence(predictions, record.label_names)
            arrays |= {
                "influence": found.values.astype("<f4", copy=False),
                "influence_of": np.array(found.images),
                "influence_mAP": np.array(found.mAP, "<f8"),
                "influence_version": np.array(INFLUENCE_VERSION, "<i8"),
            }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def prediction_arrays(
    predictions: Predictions, record: RunRecord, prefix: str = ""
) -> dict[str, NDArray[Any]]:
    """The arrays of an archive: logits, targets and keys of each split, and the label names.

    Raises:
        StoreError: the predictions do not fit the record.
    """
    n, c = len(predictions.keys), len(record.label_names)
    if predictions.logits.shape != (n, c) or predictions.targets.shape != (n, c):
        raise StoreError(
            f"predictions of run {record.run_id}: {prefix}logits {predictions.logits.shape} and "
            f"targets {predictions.targets.shape} must be [{n} keys, {c} labels]"
        )
    arrays: dict[str, NDArray[Any]] = {
        f"{prefix}logits": predictions.logits.astype(np.float32, copy=False),
        f"{prefix}targets": predictions.targets.astype(np.int8, copy=False),
        f"{prefix}keys": np.array(predictions.keys, dtype=np.str_),
        "names": np.array(record.label_names, dtype=np.str_),
    }
    held = predictions.validation
    return arrays if held is None else arrays | prediction_arrays(held, record, VALIDATION)


def read_predictions(arrays: Arrays, prefix: str = "") -> Predictions:
    """The predictions of both splits; the inverse of ``prediction_arrays``."""
    logits, targets, keys = (arrays[f"{prefix}{name}"] for name in ("logits", "targets", "keys"))
    both = not prefix and f"{VALIDATION}keys" in arrays
    validation = read_predictions(arrays, VALIDATION) if both else None
    return Predictions(logits, targets, tuple(keys.tolist()), validation)


def stored_influence(arrays: Arrays) -> Influence | None:
    """The influence in an archive; None if it has none of this version."""
    if "influence" not in arrays or arrays["influence_version"] != INFLUENCE_VERSION:
        return None
    of, values, score = (arrays[f"influence{end}"] for end in ("_of", "", "_mAP"))
    return Influence(str(of), values, float(score))
