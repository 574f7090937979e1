"""The images that a run ranks best and worst, read from the first rows of its predictions."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.store import open_arrays
from mlbench.types import Targets, Value
from mlbench_tools.page import derived

LISTED = 10
"""Images listed at either end."""
TOP = 3
"""Labels listed as predicted."""
KIND = "examples-1"
"""Of what is cached; another number makes all of them anew."""


class Example(Value):
    """One test image.

    Attributes:
        precision: average precision of the ranking of its labels, in percent.
        present: its labels.
        predicted: the labels with the highest scores, best first.
    """

    key: str
    precision: float
    present: tuple[str, ...]
    predicted: tuple[str, ...]


class Examples(Value):
    """The ends of the ranking of images.

    Attributes:
        images: in the predictions; ``seen`` of them, from the first on, were looked at.
    """

    images: int
    seen: int
    worst: tuple[Example, ...]
    best: tuple[Example, ...]


def examples(file: Path, names: Sequence[str], rows: int, cache: Path) -> Examples:
    """The worst and best images of a predictions file, from the cache where it has enough.

    Args:
        file: predictions as ``Store`` writes them.
        names: C label names.
        rows: how many images to look at, at most.
        cache: a folder for the answers.

    Raises:
        StoreError: the file is missing or damaged.
    """
    place = derived.place(file, KIND, cache)
    known = derived.read(place, Examples)
    if known is not None and known.seen >= min(rows, known.images):
        return known
    with open_arrays(file) as arrays:
        found = _find(arrays.zip, names, rows)
    derived.keep(place, found)
    return found


def image_average_precision(logits: NDArray[np.float32], targets: Targets) -> NDArray[np.float64]:
    """Average precision of each image's ranking of labels (the terms of LRAP).

    Args:
        logits: [N, C].
        targets: int8 [N, C]; unknown labels (-1) are left out of the ranking.

    Returns:
        float64 [N] in [0, 1]; NaN where an image has no positive label.
    """
    image, label = np.nonzero(targets == 1)
    of_image = targets[image]
    above = (logits[image] >= logits[image, label][:, None]) & (of_image >= 0)
    precision = (above & (of_image == 1)).sum(1) / above.sum(1)
    count = np.bincount(image, minlength=len(targets))
    total = np.bincount(image, weights=precision, minlength=len(targets))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class _Rows(NamedTuple):
    array: NDArray[Any]
    total: int


def _find(archive: zipfile.ZipFile, names: Sequence[str], rows: int) -> Examples:
    logits, total = _first_rows(archive, "logits", rows)
    targets, keys = (_first_rows(archive, name, rows).array for name in ("targets", "keys"))
    if logits.shape != targets.shape or logits.shape[1:] != (len(names),):
        raise ValueError(
            f"logits {logits.shape}, targets {targets.shape} and {len(names)} labels do not fit"
        )
    precision = image_average_precision(logits, targets)
    ends = _ends(precision)
    # Many images are ranked without a fault: among those the surest comes first.
    order = ends[np.lexsort((-_loss(logits[ends], targets[ends]), precision[ends]))]

    def shown(i: int) -> Example:
        return Example(
            key=str(keys[i]),
            precision=round(100 * float(precision[i]), 2),
            present=tuple(names[c] for c in np.flatnonzero(targets[i] == 1).tolist()),
            predicted=tuple(names[c] for c in np.argsort(-logits[i], kind="stable")[:TOP].tolist()),
        )

    return Examples(
        images=total,
        seen=len(logits),
        worst=tuple(shown(i) for i in order[:LISTED].tolist()),
        best=tuple(shown(i) for i in order[::-1][:LISTED].tolist()),
    )


def _ends(precision: NDArray[np.float64]) -> NDArray[np.intp]:
    """The images that may be listed: those no better than the last of the worst, and vice versa."""
    scored = np.flatnonzero(np.isfinite(precision))
    if len(scored) <= 2 * LISTED:
        return scored
    low, high = np.partition(precision[scored], (LISTED - 1, -LISTED))[[LISTED - 1, -LISTED]]
    shown: NDArray[np.intp] = scored[(precision[scored] <= low) | (precision[scored] >= high)]
    return shown


def _loss(logits: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """Binary cross entropy of each image, a mean over its known labels."""
    known = targets >= 0
    entropy = np.where(known, np.logaddexp(0, logits) - (targets == 1) * logits, 0)
    loss: NDArray[np.float32] = entropy.sum(1) / known.sum(1)
    return loss


def _first_rows(archive: zipfile.ZipFile, name: str, rows: int) -> _Rows:
    """The first rows of an array, decompressing no more than they need."""
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        if fortran or dtype.hasobject or not shape:
            raise ValueError(f"{name} is not an array of rows of numbers or text")
        count = min(rows, shape[0])
        width = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        data = np.frombuffer(stream.read(count * width), dtype)
    return _Rows(data.reshape(count, *shape[1:]), shape[0])
