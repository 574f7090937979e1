"""The form of a pack: a zip of the record, the predictions, the settings and a manifest.

    manifest.json     format version, run id, the SHA-256 of every other member
    record.json       as the store keeps it
    recipe.yaml       the run's spec, for a person to read and to repeat (mlbench.recipe)
    predictions.npz   logits, targets, keys and label names of the test split, and what each image
                      does to mAP; none if it diverged

The same result gives the same members byte for byte: no time of day, no name of a machine. Reading
extracts nothing to the disk, and believes nothing: what the parts say is for ``verify`` to judge.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mlbench import __version__, recipe
from mlbench.store import Influence
from mlbench.types import PackError, Predictions, RunRecord, Value
from mlbench_tools.submit import arrays

FORMAT = 1
LIMIT = 1 << 30
"""Bytes that a pack may hold, unpacked; the logits of 40,137 images by 80 labels are 13 million."""
RECORD, RECIPE, PREDICTIONS, MANIFEST = (
    "record.json",
    "recipe.yaml",
    "predictions.npz",
    "manifest.json",
)
_MEMBERS = (MANIFEST, RECORD, RECIPE, PREDICTIONS)
_FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can hold."""
_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)
_REMEDY = "ask for it again; `mlbench pack` makes one"


class Manifest(Value):
    """What a pack says of itself: its format, its run, and the SHA-256 of each other member."""

    format: int
    mlbench: str
    run_id: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Pack:
    """What a file holds, as it stands there.

    Attributes:
        name: of the file, for messages.
        sha256: of each member but the manifest, as computed.
        recipe: text of the member, None where it is missing.
        predicted: None where the member is missing.
    """

    name: str
    manifest: Manifest
    sha256: Mapping[str, str]
    record: RunRecord
    recipe: str | None
    predicted: arrays.Predicted | None


# ------------------------------------------------------------------------------------------ making
def make(
    record: RunRecord, predictions: Predictions | None, influence: Influence | None = None
) -> bytes:
    """A pack of a result.

    Logits stay float32: rounded to float16, every record of ours had another score.

    Args:
        record: what the run found.
        predictions: on the test split; None for a run that diverged.
        influence: as the store has it.

    Raises:
        PackError: the run has scores, but there are no predictions to recompute them from.
    """
    if (predictions is None) != (record.status == "diverged"):
        has = "no predictions" if predictions is None else "predictions"
        raise PackError(
            f"run {record.run_id} is {record.status} and has {has}, so that nobody could verify it;"
            " run it again"
        )
    members = {
        RECORD: (record.model_dump_json(indent=1) + "\n").encode(),
        RECIPE: recipe.text(record).encode(),
    }
    if predictions is not None:
        members[PREDICTIONS] = arrays.dump(predictions, record, influence)
    manifest = Manifest(
        format=FORMAT,
        mlbench=__version__,
        run_id=record.run_id,
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    )
    return zipped({MANIFEST: (manifest.model_dump_json(indent=1) + "\n").encode(), **members})


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip of these members in this order, the same on every day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name, _FIRST_DAY)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = 3, 0o644 << 16  # Unix, wherever made
            archive.writestr(member, data, compresslevel=9)
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------- reading
def read(file: Path) -> Pack:
    """What a file holds.

    Raises:
        PackError: it cannot be read, is no pack, is damaged, holds what no pack holds, or more than
            ``LIMIT``; or its format is another than ``FORMAT``.
    """
    members = _members(file)
    manifest = _manifest(file, members.pop(MANIFEST, None))
    if RECORD not in members:
        raise PackError(f"{file} has no {RECORD}; {_REMEDY}")
    try:
        record = RunRecord.model_validate_json(members[RECORD])
    except ValidationError as error:
        raise PackError(
            f"{file}: {RECORD} is no record of mlbench {__version__} ({_first(error)}); "
            "a newer mlbench may know it"
        ) from error
    predicted = None
    if PREDICTIONS in members:
        try:
            predicted = arrays.load(members[PREDICTIONS], LIMIT)
        except PackError as error:
            raise PackError(f"{file}: {PREDICTIONS} {error}; {_REMEDY}") from error
    described = members.get(RECIPE)
    return Pack(
        name=str(file),
        manifest=manifest,
        sha256={name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        record=record,
        recipe=None if described is None else described.decode(errors="replace"),
        predicted=predicted,
    )


def _members(file: Path) -> dict[str, bytes]:
    try:
        with file.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            _refuse_strange(file, archive.infolist())
            if around := arrays.around(stream, archive):
                raise PackError(f"{file} holds {around}; {_REMEDY}")
            return {member.filename: archive.read(member) for member in archive.infolist()}
    except OSError as error:
        raise PackError(f"{file} cannot be read ({error.strerror or error})") from error
    except _DAMAGES as error:
        raise PackError(f"{file} is no pack, or damaged ({error}); {_REMEDY}") from error


def _refuse_strange(file: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.orig_filename for member in members]
    for name in names:
        if re.search(r"[/\\\0]|^\.\.$|^[A-Za-z]:", name):
            raise PackError(f"{file}: {name!r} would land outside of the pack; nothing was read")
        if name not in _MEMBERS:
            raise PackError(f"{file}: {name!r} has no place in a pack; nothing was read")
        if names.count(name) > 1:
            raise PackError(f"{file}: {name!r} is there {names.count(name)} times; which counts?")
    total = sum(member.file_size for member in members)
    if total > LIMIT:
        raise PackError(
            f"{file} would unpack to {total:,} bytes, and no pack holds more than {LIMIT:,}: it is "
            "made to fill the memory; nothing was read"
        )


def _manifest(file: Path, data: bytes | None) -> Manifest:
    if data is None:
        raise PackError(f"{file} has no {MANIFEST}, so it is no pack; {_REMEDY}")
    try:
        plain = json.loads(data)
        version = plain.get("format") if isinstance(plain, dict) else None
        if version != FORMAT:
            raise PackError(
                f"{file} has format {version!r}, and mlbench {__version__} reads format {FORMAT}; "
                "update mlbench, or have it packed again"
            )
        return Manifest.model_validate(plain)
    except ValidationError as error:
        raise PackError(f"{file}: {MANIFEST} is malformed ({_first(error)}); {_REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise PackError(f"{file}: {MANIFEST} is no JSON ({error}); {_REMEDY}") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{where}: {first['msg']}"
