"""Reads the files of NUS-WIDE: the official lists and labels, and the table published with ASL."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Split, Targets
from mlbench_plugins.datasets.photographs import read_card, read_lines, read_text

Listed = tuple[list[str], Targets]
"""N image paths with forward slashes, and their labels int8 [N, C] in {1, 0}."""

NAMES = read_card("nuswide").orders["official"]
"""The concepts in the order of Concepts81.txt."""

TABLE = "nus_wid_data.csv"
LISTS: dict[Split, str] = {
    "train": "ImageList/TrainImagelist.txt",
    "test": "ImageList/TestImagelist.txt",
}
SINGLE_POSITIVE: dict[Split, str] = {
    "train": "single_positive_train.txt",
    "test": "single_positive_test.txt",
}
_COLUMN = {name: c for c, name in enumerate(NAMES)}
_PART: dict[Split, tuple[str, str]] = {"train": ("Train", "train"), "test": ("Test", "val")}
"""Split -> what the official files and the table call it."""
_AGAIN = "unpack the official ImageList.zip, Groundtruth.zip and ConceptsList.zip again"


def read_original(folder: Path, split: Split) -> Listed:
    """An official list with ``Groundtruth/TrainTestLabels``.

    Raises:
        DataError: a file is missing or malformed, or has another number of lines than the list.
    """
    images = folder / LISTS[split]
    labels = folder / "Groundtruth" / "TrainTestLabels"
    keys = _read_list(images, _AGAIN)
    files = [labels / f"Labels_{name}_{_PART[split][0]}.txt" for name in NAMES]
    return keys, _read_columns(files, images, len(keys))


def read_single_positive(folder: Path, split: Split) -> Listed:
    """Another list of official images, with ``Groundtruth/AllLabels``.

    Raises:
        DataError: as above, or the list names an image that the official list does not.
    """
    everything = folder / "ImageList" / "Imagelist.txt"
    row = {key: i for i, key in enumerate(_read_list(everything, _AGAIN))}
    listed = folder / SINGLE_POSITIVE[split]
    keys = _read_list(listed, "write the benchmark's list there, one image path a line")
    for number, key in enumerate(keys, start=1):
        if key not in row:
            raise DataError(
                f"{listed} line {number}: {key!r} is not in {everything}; write the paths as they "
                "are written there"
            )
    labels = folder / "Groundtruth" / "AllLabels"
    files = [labels / f"Labels_{name}.txt" for name in NAMES]
    return keys, _read_columns(files, everything, len(row))[[row[key] for key in keys]]


def read_table(folder: Path, split: Split) -> Listed:
    """One split of ``nus_wid_data.csv``, by the position of its columns.

    They are an image path, a list of concepts as Python writes it, and ``train`` or ``val``. A
    first row without such a list names the columns.

    Raises:
        DataError: the file is missing or malformed; the text names the line.
    """
    import pandas as pd

    file = folder / TABLE
    text = io.StringIO(read_text(file, "download it again"))
    try:
        frame = pd.read_csv(text, header=None, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError(f"{file} is no table: {error}; download it again") from error
    if frame.shape[1] != 3:
        raise DataError(f"{file} has {frame.shape[1]} columns instead of path, labels and split")
    frame = frame.set_axis(["path", "labels", "part"], axis="columns")
    frame.index = pd.Index([f"{file} line {row + 1}" for row in range(len(frame))])
    if not frame["labels"].iloc[0].lstrip().startswith("["):
        frame = frame.iloc[1:]
    for where, part in frame["part"].items():
        if part not in ("train", "val"):
            raise DataError(f"{where}: {part!r} is neither 'train' nor 'val'")
    frame = frame[frame["part"] == _PART[split][1]]
    if not len(frame):
        raise DataError(f"{file} has no line of the split {_PART[split][1]!r}")
    keys = _unique_keys(zip(frame.index, frame["path"], strict=True))
    known = {
        labels: _read_labels(labels, str(where))
        for where, labels in frame["labels"].drop_duplicates().items()
    }
    return keys, np.stack([known[labels] for labels in frame["labels"]])


READERS: dict[str, Callable[[Path, Split], Listed]] = {
    "csv": read_table,
    "original": read_original,
    "single_positive": read_single_positive,
}


def _read_list(file: Path, remedy: str) -> list[str]:
    lines = enumerate(read_lines(file, remedy), start=1)
    return _unique_keys((f"{file} line {number}", line) for number, line in lines)


def _unique_keys(paths: Iterable[tuple[str, str]]) -> list[str]:
    """(place in a file, image path) -> keys with forward slashes."""
    keys: dict[str, None] = {}
    for where, path in paths:
        key = path.strip().replace("\\", "/")
        if not key or key.endswith("/"):
            raise DataError(f"{where}: {path!r} is no path of an image")
        if key in keys:
            raise DataError(f"{where}: image {key} is listed twice")
        keys[key] = None
    return list(keys)


def _read_columns(files: list[Path], images: Path, count: int) -> Targets:
    """int8 [N, C] from one file per label, with 0 or 1 for each of the N images."""
    targets_NC = np.empty((count, len(files)), np.int8)
    for c, file in enumerate(files):
        lines = [line.strip() for line in read_lines(file, _AGAIN)]
        if len(lines) != count:
            raise DataError(
                f"{file} has {len(lines)} lines, but {images} lists {count} images; {_AGAIN}"
            )
        if not set(lines) <= {"0", "1"}:
            number, line = next((i, one) for i, one in enumerate(lines, 1) if one not in ("0", "1"))
            raise DataError(f"{file} line {number}: {line!r} is neither 0 nor 1; {_AGAIN}")
        targets_NC[:, c] = [line == "1" for line in lines]
    return targets_NC


def _read_labels(text: str, where: str) -> NDArray[np.int8]:
    """int8 [C] from the text of a Python list of concepts."""
    try:
        labels = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        labels = None
    if not isinstance(labels, list):
        raise DataError(f"{where}: {text!r:.200} is no list such as \"['clouds', 'sky']\"")
    target_C = np.zeros(len(NAMES), np.int8)
    for label in labels:
        if label not in _COLUMN:
            raise DataError(f"{where}: {label!r} is none of the 81 concepts")
        target_C[_COLUMN[label]] = 1
    return target_C
