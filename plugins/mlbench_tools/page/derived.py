"""What pages derive from predictions, kept in the cache and found again by checksums.

The directory of a predictions file holds a checksum of each of its arrays, so that nothing is
decompressed to find what was derived from them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

from mlbench.files import atomic_write
from mlbench.store import open_arrays
from mlbench.types import StoreError, Value

Kept = TypeVar("Kept", bound=Value)


def place(file: Path, kind: str, cache: Path) -> Path:
    """Where the cache keeps what is derived of a predictions file.

    Args:
        file: predictions as ``Store`` writes them.
        kind: what is derived, and in which form: another one is another file.
        cache: a folder.

    Raises:
        StoreError: the file is missing or damaged.
    """
    state = hashlib.sha256(kind.encode())
    if not file.exists():
        raise StoreError("There are no predictions beside the record.")
    with open_arrays(file) as arrays:
        for member in arrays.zip.infolist():
            state.update(f"\n{member.filename} {member.CRC} {member.file_size}".encode())
    return cache / f"{kind}-{state.hexdigest()[:32]}.json"


def read(place: Path, kind: type[Kept]) -> Kept | None:
    """What is kept there; None where nothing is, or nothing that can be read."""
    try:
        return kind.model_validate_json(place.read_bytes())
    except (OSError, ValueError):  # it is derived anew
        return None


def keep(place: Path, value: Value) -> None:
    """Keep a value; several processes may keep the same one at once.

    Raises:
        StoreError: the cache cannot be written.
    """
    try:
        with atomic_write(place) as part:
            part.write_text(value.model_dump_json(), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{place}: the cache cannot be written ({error.strerror or error}); name another "
            "folder in MLBENCH_CACHE"
        ) from error
