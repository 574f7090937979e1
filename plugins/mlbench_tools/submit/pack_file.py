"""The form of a pack: a zip of the record, the recipe, the predictions and a manifest.

    manifest.json     format version, run id, SHA-256 of every other member
    record.json       the record, as in the store
    recipe.yaml       the run's settings, to read and to repeat (see ``mlbench.run_file``)
    predictions.npz   logits, targets, keys and label names of the test split, and of the
                      validation split if there is one; absent if the run diverged

The same run gives the same bytes. Reading writes nothing to disk.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from mlbench import __version__, run_file
from mlbench.evidence import (
    prediction_arrays,
    read_predictions,
    record_digest,
    sha256_of_arrays,
    to_json,
)
from mlbench.text import first_error
from mlbench.types import PackError, Predictions, RunRecord, Value

MANIFEST, RECORD = "manifest.json", "record.json"
RECIPE, PREDICTIONS = "recipe.yaml", "predictions.npz"
LIMIT = 2 << 30
"""Bytes that a pack, and the predictions in it, may hold unpacked; a small file may hold any."""
_REMEDY = "ask for the file again, or make one with `mlbench pack`"
_Model = TypeVar("_Model", bound=BaseModel)


class PackManifest(Value):
    """Format and run of a pack, and the SHA-256 of each other member.

    Attributes:
        mlbench: the version that made the pack.
    """

    format: Literal[1]
    mlbench: str
    run_id: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Pack:
    """The contents of a pack. Shapes fit the record; nothing else has been checked.

    Attributes:
        file: path of the pack, for messages.
        sha256: computed digest of each member except the manifest.
        recipe: text of ``recipe.yaml``.
        predictions: None if the run diverged.
        predictions_run_id: the run that the predictions name.
        record_digest: computed digest of the record.
        arrays_sha256: computed digest of each array of the predictions.
    """

    file: str
    manifest: PackManifest
    sha256: Mapping[str, str]
    record: RunRecord
    recipe: str
    predictions: Predictions | None
    predictions_run_id: str | None
    record_digest: str
    arrays_sha256: Mapping[str, str]


# ----------------------------------------------------------------------------------------- writing
def renewed(record: RunRecord) -> RunRecord:
    """Return a record, which a store has checked, with the digest of its present form.

    The file of an earlier record lacks fields that were added since; its pack has them.
    """
    new = record_digest(to_json(record)) if record.digest else record.digest
    return record.model_copy(update={"digest": new})


def make(record: RunRecord, predictions: Predictions | None) -> bytes:
    """Return the bytes of a pack.

    Raises:
        PackError: the run has scores but no predictions to recompute them from.
    """
    if (predictions is None) != (record.status == "diverged"):
        has = "no predictions" if predictions is None else "predictions"
        raise PackError(
            f"run {record.run_id} is {record.status} and has {has}, so its scores cannot be "
            "verified; run it again"
        )
    members = {RECORD: to_json(record), RECIPE: run_file.to_yaml(record).encode()}
    if predictions is not None:
        members[PREDICTIONS] = _dump(predictions, record)
    manifest = PackManifest(
        format=1,
        mlbench=__version__,
        run_id=record.run_id,
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    )
    return zipped({MANIFEST: (manifest.model_dump_json(indent=1) + "\n").encode(), **members})


def zipped(members: Mapping[str, bytes]) -> bytes:
    """Return a zip of the members in this order; equal members give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)  # dated 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, 0o644 << 16  # Unix on every system
            archive.writestr(member, data, compresslevel=9)
    return buffer.getvalue()


def _dump(predictions: Predictions, record: RunRecord) -> bytes:
    """Return an uncompressed .npz; the pack around it is compressed."""
    buffer = io.BytesIO()
    arrays = {**prediction_arrays(predictions, record), "run_id": np.array(record.run_id)}
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # numpy's stub sees allow_pickle in **
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------- reading
def read(file: Path) -> Pack:
    """Read a pack.

    Raises:
        PackError: the file cannot be read, is damaged, is not a pack, or has another format.
    """
    members = _members(file)
    manifest = _parse(file, members, MANIFEST, PackManifest)
    record = _parse(file, members, RECORD, RunRecord)
    predictions, run_id, arrays = None, None, {}
    if record.status == "ok" or PREDICTIONS in members:
        data = _member(file, members, PREDICTIONS)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                _names(archive)
            arrays = sha256_of_arrays(data)
            predictions, run_id = _load(data, record)
        except Exception as error:  # numpy and zipfile raise many types on damaged bytes
            raise PackError(f"{file}: {PREDICTIONS} is damaged ({error}); {_REMEDY}") from error
    return Pack(
        file=str(file),
        manifest=manifest,
        sha256={
            name: hashlib.sha256(data).hexdigest()
            for name, data in members.items()
            if name != MANIFEST
        },
        record=record,
        recipe=_member(file, members, RECIPE).decode(errors="replace"),
        predictions=predictions,
        predictions_run_id=run_id,
        record_digest=record_digest(members[RECORD]),
        arrays_sha256=arrays,
    )


def _members(file: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {n: archive.read(n) for n in _names(archive) if not n.endswith("/")}
    except OSError as error:
        raise PackError(f"{file} cannot be read ({error.strerror or error}); {_REMEDY}") from error
    except Exception as error:  # zipfile and its decompressors raise many types on damaged bytes
        raise PackError(f"{file} is damaged or not a pack ({error}); {_REMEDY}") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    """The members' names; BadZipFile if one is there twice, or they hold more than ``LIMIT``."""
    names = archive.namelist()
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise zipfile.BadZipFile(f"it holds {twice[0]!r} twice")
    if (size := sum(member.file_size for member in archive.infolist())) > LIMIT:
        raise zipfile.BadZipFile(f"it holds {size:,} bytes, more than {LIMIT:,}")
    return names


def _member(file: Path, members: Mapping[str, bytes], name: str) -> bytes:
    if name not in members:
        raise PackError(f"{file} is not a pack: it has no {name}; {_REMEDY}")
    return members[name]


def _parse(file: Path, members: Mapping[str, bytes], name: str, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(_member(file, members, name))
    except ValidationError as error:
        raise PackError(
            f"{file}: mlbench {__version__} cannot read {name} ({first_error(error)}); update "
            f"mlbench, or {_REMEDY}"
        ) from error


def _load(data: bytes, record: RunRecord) -> tuple[Predictions, str]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        predictions, run_id = read_predictions(arrays), str(arrays["run_id"])
    prediction_arrays(predictions, record)  # raises if shapes do not fit
    if len(predictions.keys) != record.test_images:
        raise PackError(f"it has {len(predictions.keys)} images, the record {record.test_images}")
    return predictions, run_id
