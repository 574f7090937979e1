"""One instances json in COCO's form, its annotations as labels of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_listing import Listing


def is_coco(content: Any) -> bool:
    """Whether a json's content is of COCO's form."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def from_coco(file: Path, content: Mapping[str, Any]) -> Listing:
    """A label is present where an instance of it, crowds included, is annotated.

    The labels stand in the order of their ids. A category named like another is an error; one
    that no image has stays, as a label without a positive.

    Raises:
        DataError: a part is missing, an id stands twice, or an annotation names an image or a
            category that is not there.
    """
    for part in ("images", "annotations", "categories"):
        if not isinstance(content.get(part), list):
            raise DataError(f"{file} has no list {part!r}; COCO's images need it for their labels")
    images = _by_id(file, content, "images", "file_name")
    categories = dict(sorted(_by_id(file, content, "categories", "name").items()))
    names = tuple(categories.values())
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: two categories are called {twice!r}; rename one")
    row = {key: i for i, key in enumerate(images)}
    column = {key: i for i, key in enumerate(categories)}
    objects_NC = np.zeros((len(row), len(column)), np.int32)
    for at, annotation in enumerate(content["annotations"]):
        try:
            objects_NC[row[annotation["image_id"]], column[annotation["category_id"]]] += 1
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{file}: annotations[{at}] names an image or a category that the file does not "
                f"list: {annotation!r:.200}; take it out, or add what it names"
            ) from error
    return Listing(
        source=file,
        folders=(file.parent, file.parent / "images"),
        images=list(images.values()),
        names=names,
        targets=(objects_NC > 0).astype(np.int8),
        objects=objects_NC,
        places=[f"images[{i}]" for i in range(len(images))],
    )


def _by_id(file: Path, content: Mapping[str, Any], part: str, field: str) -> dict[int, str]:
    """Id -> the text of a field, in the order of the file."""
    found: dict[int, str] = {}
    for at, item in enumerate(content[part]):
        number = item.get("id") if isinstance(item, dict) else None
        text = item.get(field) if isinstance(item, dict) else None
        if type(number) is not int or not isinstance(text, str) or not text.strip():
            raise DataError(
                f"{file}: {part}[{at}] has no whole number 'id' and text {field!r}: {item!r:.200}"
            )
        if number in found:
            raise DataError(f"{file}: id {number} stands twice in {part}")
        found[number] = text
    return found
