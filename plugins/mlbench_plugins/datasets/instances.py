"""Image-level labels, and counts of objects, from a json of instances in COCO's form.

The json is read here and not by ``pycocotools.coco.COCO``: that keeps every polygon and builds
indices by instance, which a label matrix has no use for, takes some gigabytes more, and prints.
The tests hold this reader against it. msgspec makes objects of the fields named here alone: of the
full json that is a tenth of the time, and half of the memory, that the standard library takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.photographs import unreadable

Ids = NDArray[np.int64]

_Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Image(msgspec.Struct):
    id: _Id
    file_name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id


class _Category(msgspec.Struct):
    id: _Id
    name: str


class _Content(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class Instances:
    """An instances json as one matrix of how many objects of each label an image has.

    Attributes:
        names: C category names in the order of their ids.
        ids: int64 [N], ascending.
        files: N file names.
        objects: int32 [N, C] annotations, a crowd counted as one.
    """

    names: tuple[str, ...]
    ids: Ids
    files: Sequence[str]
    objects: NDArray[np.int32]

    @property
    def targets(self) -> Targets:
        """int8 [N, C] in {1, 0}: which labels an image has."""
        return (self.objects > 0).astype(np.int8)


def remembered(file: Path, cache: Path) -> Instances:
    """``read_instances``, but a file is parsed once: the full json takes 2 seconds and half a GiB.

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
            return Instances(tuple(names), held["ids"], files, held["objects"])
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
            objects=found.objects,
        )
        partial.replace(kept)
    except OSError:  # a full disk costs time at the next start, nothing more
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return found


def read_instances(file: Path) -> Instances:
    """The labels and counts of objects in an instances json; opens no image.

    Raises:
        DataError: the file is missing, is no json or no instances json, or contradicts itself.
    """
    content = _parse(file)
    image_ids = _column(image.id for image in content.images)
    category_ids = _column(category.id for category in content.categories)
    by_image, by_category = np.argsort(image_ids), np.argsort(category_ids)
    ids, categories = image_ids[by_image], category_ids[by_category]
    _refuse_repeats(file, "images", ids)
    _refuse_repeats(file, "categories", categories)
    _refuse_files(file, content.images)
    names = tuple(content.categories[i].name for i in by_category)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{file}: two categories are called {twice!r}; every name must be unique")
    named_images = _column(item.image_id for item in content.annotations)
    named_categories = _column(item.category_id for item in content.annotations)
    rows = _places(file, "image", named_images, ids)
    columns = _places(file, "category", named_categories, categories)
    objects_NC = np.zeros((len(ids), len(categories)), np.int32)
    np.add.at(objects_NC, (rows, columns), 1)
    return Instances(names, ids, [content.images[i].file_name for i in by_image], objects_NC)


_EXPECTED = (
    "expected an instances json such as annotations/instances_train2017.json, no captions and no "
    "detection results"
)


def _parse(file: Path) -> _Content:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Content)
    except FileNotFoundError:
        raise DataError(f"{file} is missing; unpack COCO's annotations there") from None
    except OSError as error:
        raise unreadable(file, error) from error
    except msgspec.ValidationError as error:
        raise DataError(f"{file}: {error}; {_EXPECTED}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{file} is no whole json: {error}; download or unpack it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no json text: {error}; {_EXPECTED}") from error


def _column(values: Iterable[int]) -> Ids:
    return np.fromiter(values, np.int64)


def _refuse_files(file: Path, images: Iterable[_Image]) -> None:
    """A file is one image's, and lies in the folder of images."""
    owner: dict[str, int] = {}
    for image in images:
        name, number = image.file_name, image.id
        path = posixpath.normpath(name.replace("\\", "/"))
        if path in (".", "..") or path.startswith(("/", "../")) or path[1:3] == ":/":
            raise DataError(
                f"{file}: the file_name {name!r} of image id {number} leads out of the folder of "
                "images; write the path below that folder"
            )
        if owner.setdefault(path, number) != number:
            raise DataError(
                f"{file}: images {owner[path]} and {number} have one file_name, {name!r}; give "
                "each image a file of its own, or put all annotations on one of the two ids"
            )


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
            f"first is annotations[{stray[0]}] with {kind} id {wanted[stray[0]]}. Unpack the json "
            "again, or take such annotations out of your own"
        )
    return places.astype(np.int64)
