"""Image-level labels from a json of instances in COCO's form.

The json is read here and not by ``pycocotools.coco.COCO``: that keeps every polygon and builds
indices by instance, which a label matrix has no use for, takes some gigabytes more, and prints.
The tests hold this reader against it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Targets

Ids = NDArray[np.int64]

_WANTED = frozenset(
    {"images", "annotations", "categories", "id", "file_name", "image_id", "category_id", "name"}
)


@dataclass(frozen=True)
class Instances:
    """An instances json as one label matrix.

    Attributes:
        names: C category names in the order of their ids.
        ids: int64 [N], ascending.
        files: N file names.
        targets: int8 [N, C] in {1, 0}.
    """

    names: tuple[str, ...]
    ids: Ids
    files: Sequence[str]
    targets: Targets


def remembered(file: Path, cache: Path) -> Instances:
    """``read_instances``, but a file is parsed once: the full json takes ten seconds and a GiB.

    Args:
        file: the json; where it lies nothing is written.
        cache: a folder for what was read; one that cannot be written to only costs time.
    """
    try:
        stat = file.stat()
    except OSError:
        return read_instances(file)
    state = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache / f"coco-{hashlib.sha256(state.encode()).hexdigest()[:16]}.npz"
    try:
        with kept.open("rb") as stream, np.load(stream) as held:
            names, files = held["names"].tolist(), held["files"].tolist()
            return Instances(tuple(names), held["ids"], files, held["targets"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass
    found = read_instances(file)
    partial = kept.with_name(f"{kept.stem}.{os.getpid()}.part.npz")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            partial,
            names=np.array(found.names),
            ids=found.ids,
            files=np.array(found.files),
            targets=found.targets,
        )
        partial.replace(kept)
    except OSError:  # a full disk costs time at the next start, nothing more
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return found


def read_instances(file: Path) -> Instances:
    """The image-level labels in an instances json; opens no image.

    Raises:
        DataError: the file is missing, is no json or no instances json, or contradicts itself.
    """
    content = _parse(file)
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise DataError(f"{file} has no list {part!r}; {_EXPECTED}")
    image_ids = _column(file, content, "images", "id")
    category_ids = _column(file, content, "categories", "id")
    by_image, by_category = np.argsort(image_ids), np.argsort(category_ids)
    ids, categories = image_ids[by_image], category_ids[by_category]
    _refuse_repeats(file, "images", ids)
    _refuse_repeats(file, "categories", categories)
    targets_NC = np.zeros((len(ids), len(categories)), np.int8)
    rows = _places(file, "image", _column(file, content, "annotations", "image_id"), ids)
    columns = _places(
        file, "category", _column(file, content, "annotations", "category_id"), categories
    )
    targets_NC[rows, columns] = 1
    names = _texts(file, content, "categories", "name")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{file}: two categories are called {twice!r}; every name must be unique")
    files = _texts(file, content, "images", "file_name")
    return Instances(
        tuple(names[i] for i in by_category), ids, [files[i] for i in by_image], targets_NC
    )


_EXPECTED = "expected an instances json such as annotations/instances_train2017.json"


def _parse(file: Path) -> dict[str, Any]:
    # Dropping polygons while parsing keeps the full file within 1 GiB; afterwards would be too late
    def slim(item: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in item.items() if key in _WANTED}

    try:
        content = json.loads(file.read_bytes(), object_hook=slim)
    except FileNotFoundError:
        raise DataError(f"{file} is missing; unpack COCO's annotations there") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file} is no whole json: {error.msg} at line {error.lineno} column {error.colno} "
            f"(character {error.pos}); download or unpack it again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no json text: {error}; {_EXPECTED}") from error
    if isinstance(content, list):
        raise DataError(
            f"{file}: this is a list of {len(content)} detection results, not an instances json; "
            f"{_EXPECTED}"
        )
    if not isinstance(content, dict):
        raise DataError(f"{file} holds a {type(content).__name__}; {_EXPECTED}")
    return content


def _column(file: Path, content: Mapping[str, Any], part: str, field: str) -> Ids:
    """int64 [number of items] of one field; only if that fails is the culprit looked for."""
    items = content[part]
    try:
        column = np.array([item[field] for item in items])
    except (TypeError, KeyError, ValueError):
        column = np.empty(0, object)
    if not items or (len(column) == len(items) and column.dtype.kind == "i"):
        return column.astype(np.int64)
    at, item = next(
        (i, item)
        for i, item in enumerate(items)
        if not isinstance(item, dict) or not _is_id(item.get(field))
    )
    raise DataError(f"{file}: {part}[{at}] has no whole number {field!r}: {item!r}; {_EXPECTED}")


def _is_id(value: object) -> bool:
    return type(value) is int and abs(value) < 2**63


def _texts(file: Path, content: Mapping[str, Any], part: str, field: str) -> list[str]:
    for at, item in enumerate(content[part]):
        if not isinstance(item.get(field), str):
            raise DataError(f"{file}: {part}[{at}] has no text {field!r}: {item!r}; {_EXPECTED}")
    return [item[field] for item in content[part]]


def _refuse_repeats(file: Path, part: str, ids: Ids) -> None:
    repeats = ids[1:][ids[1:] == ids[:-1]]
    if len(repeats):
        raise DataError(
            f"{file}: {len(repeats)} ids of {part} stand there twice, first {repeats[0]}; "
            "every id must be unique"
        )


def _places(file: Path, kind: str, wanted: Ids, ids: Ids) -> Ids:
    """Where each wanted id stands among the sorted ids."""
    places = np.searchsorted(ids, wanted)
    stray = np.flatnonzero((places == len(ids)) | (np.append(ids, 0)[places] != wanted))
    if len(stray):
        raise DataError(
            f"{file}: {len(stray)} annotations name {kind} ids that the file does not list; the "
            f"first is annotations[{stray[0]}] with {kind} id {wanted[stray[0]]}"
        )
    return places.astype(np.int64)
