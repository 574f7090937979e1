"""Image-level labels and counts of objects from an instances json in COCO's form.

The json is not read with ``pycocotools.coco.COCO``, which keeps every polygon, builds indices by
instance, takes some gigabytes more, and prints. msgspec decodes only the fields that are named
here, the full json in a tenth of the time and half of the memory that the standard library takes.
The tests compare this reader with pycocotools.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlbench.files import read_checked, write_checked
from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.photographs import read_bytes, shell_into

Ids = NDArray[np.int64]

_EXPECTED = (
    "expected an instances json such as annotations/instances_train2017.json, no captions and no "
    "detection results"
)


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int


class _Category(msgspec.Struct):
    id: int
    name: str


class _Content(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class Instances:
    """Counts of the objects of each label in each image of an instances json.

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


def read_cached(file: Path, cache: Path) -> Instances:
    """Like ``read_instances``, but parse each version of a file only once.

    Parsing the full json takes 2 seconds and half a GiB.

    Args:
        file: the json; nothing is written to its folder.
        cache: a folder for the parsed labels; if it is not writable, the file is parsed each time.
    """
    if not file.is_file():
        return read_instances(file)
    stat = file.stat()
    state = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    kept = cache / f"coco-{hashlib.sha256(state.encode()).hexdigest()[:16]}.checked"
    content = read_checked(kept)
    if content is not None:
        with np.load(io.BytesIO(content)) as arrays:
            names, files = arrays["names"].tolist(), arrays["files"].tolist()
            return Instances(tuple(names), arrays["ids"], files, arrays["objects"])
    found = read_instances(file)
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        names=np.array(found.names),
        ids=found.ids,
        files=np.array(found.files),
        objects=found.objects,
    )
    with suppress(OSError):
        write_checked(kept, packed.getvalue())
    return found


def read_instances(file: Path) -> Instances:
    """The labels and counts of objects in an instances json; opens no image.

    Raises:
        DataError: the file is missing, is no whole instances json, or contradicts itself.
    """
    try:
        content = msgspec.json.decode(
            read_bytes(file, "unpack COCO's annotations there"), type=_Content
        )
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}; {_EXPECTED}, and a whole one") from error
    return _count(file, content)


def convert_instances(file: Path, content: Any) -> Instances:
    """Like ``read_instances``, from a json that is already parsed."""
    try:
        return _count(file, msgspec.convert(content, _Content))
    except msgspec.ValidationError as error:
        raise DataError(f"{file}: {_text_id(file, content) or f'{error}; {_EXPECTED}'}") from error


def _text_id(file: Path, content: Any) -> str:
    """A remedy for ids that are texts; empty if there is no such id."""
    fields = [["images", "id"], ["annotations", "image_id"], ["annotations", "category_id"]]
    fields += [["categories", "id"]]
    texts: set[str] = set()
    found: dict[type, str] = {}  # the first id that is a text, and the first that is a number
    for part, field in fields:
        for i, item in enumerate(content.get(part) or ()):
            value = item.get(field) if isinstance(item, dict) else None
            found.setdefault(type(value), f"{part}[{i}].{field} is {value!r}")
            texts |= {value} if isinstance(value, str) else set()
    if str not in found:
        return ""
    if not all(text.isdigit() for text in texts):
        return f"{found[str]}, a text; COCO's ids are numbers: give every image and category one"
    code = (
        f"import json; c = json.load(open({json.dumps(str(file))})); [i.update({{k: int(i[k])}}) "
        f"for p, k in {json.dumps(fields)} for i in c[p]]; print(json.dumps(c))"
    )
    number = f", a text, while {found[int]}, a number" if int in found else ", a text"
    return f"{found[str]}{number}; COCO's ids are numbers. Write all of them so: " + shell_into(
        f"python -c {shlex.quote(code)}", file, "numbers"
    )


def _count(file: Path, content: _Content) -> Instances:
    image_ids = _column(image.id for image in content.images)
    category_ids = _column(category.id for category in content.categories)
    by_image, by_category = np.argsort(image_ids), np.argsort(category_ids)
    ids, categories = image_ids[by_image], category_ids[by_category]
    names = tuple(content.categories[i].name for i in by_category)
    _refuse_repeats(file, "image id", ids.tolist())
    _refuse_repeats(file, "category id", categories.tolist())
    _refuse_repeats(file, "category name", names)
    named_images = _column(item.image_id for item in content.annotations)
    named_categories = _column(item.category_id for item in content.annotations)
    rows = _places(file, "image", named_images, ids)
    columns = _places(file, "category", named_categories, categories)
    objects_NC = np.zeros((len(ids), len(categories)), np.int32)
    np.add.at(objects_NC, (rows, columns), 1)
    return Instances(names, ids, [content.images[i].file_name for i in by_image], objects_NC)


def _column(values: Iterable[int]) -> Ids:
    return np.fromiter(values, np.int64)


def _refuse_repeats(file: Path, what: str, values: Sequence[int | str]) -> None:
    if len(set(values)) < len(values):
        first = next(value for value, times in Counter(values).items() if times > 1)
        raise DataError(f"{file}: the {what} {first!r} is used twice; each must be unique")


def _places(file: Path, kind: str, wanted: Ids, ids: Ids) -> NDArray[np.intp]:
    """The position of each wanted id among the sorted ids."""
    places = np.searchsorted(ids, wanted)
    unknown = np.flatnonzero((places == len(ids)) | (np.append(ids, 0)[places] != wanted))
    if len(unknown):
        raise DataError(
            f"{file}: {len(unknown)} annotations name {kind} ids that the file does not list; the "
            f"first is annotations[{unknown[0]}] with {kind} id {wanted[unknown[0]]}. Unpack the "
            "json again, or remove such annotations from your own"
        )
    return places
