"""How many objects of each class a VOC image has, from its XML annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError


def count_objects(
    annotations: Path, keys: Sequence[str], names: Sequence[str], *, difficult: bool
) -> NDArray[np.int32]:
    """Objects of each class in each image: int32 [N, C].

    Args:
        annotations: the folder ``Annotations``.
        keys: N names of images.
        names: C classes.
        difficult: whether objects that are marked as difficult count.

    Raises:
        DataError: an annotation is missing, is no XML, or names another class.
    """
    column = {name: c for c, name in enumerate(names)}
    counts_NC = np.zeros((len(keys), len(names)), np.int32)
    for row, key in enumerate(keys):
        _add(annotations / f"{key}.xml", column, counts_NC[row], difficult)
    return counts_NC


def _add(
    file: Path, column: Mapping[str, int], counts_C: NDArray[np.int32], difficult: bool
) -> None:
    for item in _root(file).iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if name not in column:
            raise DataError(
                f"{file} has an object {name!r}, which is no class of VOC ({', '.join(column)})"
            )
        if difficult or (item.findtext("difficult") or "0").strip() == "0":
            counts_C[column[name]] += 1


def _root(file: Path) -> ElementTree.Element:
    try:
        text = file.read_text(encoding="utf-8")
        # Entities are how a small file becomes a large one, and VOC has none.
        if "<!DOCTYPE" in text:
            raise DataError(f"{file} has a DOCTYPE, which may declare entities; unpack it again")
        return ElementTree.fromstring(text)
    except FileNotFoundError:
        raise DataError(
            f"{file} is missing; counts of objects need the folder {file.parent} of VOC's archive"
        ) from None
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{file} cannot be read as XML: {error}; unpack it again") from error
