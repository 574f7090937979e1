"""The labels of NUS-WIDE's own archives and of the lists that others made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Split, Targets
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.photographs import read_bytes, read_card, read_keys, read_lines

Listed = tuple[list[str], Targets]
"""N image paths with forward slashes, and their labels int8 [N, C] in {1, 0}."""
Lists = Mapping[Split, Path]

SPLITS: tuple[Split, ...] = ("train", "test")
NAMES = read_card("nuswide").orders["official"]
"""The concepts in the order of Concepts81.txt."""
_PART: dict[Split, tuple[str, str]] = {"train": ("Train", "train"), "test": ("Test", "val")}
"""Split -> its name in the official files, and in others' files."""
AGAIN = "unpack the official ImageList.zip, Groundtruth.zip and ConceptsList.zip again"


def with_labels(copy: Copy, lists: Lists, keys: Mapping[Split, list[str]]) -> dict[Split, Listed]:
    """Add labels to these images: AllLabels by path if they are there, else each list's own.

    AllLabels come first, as the official ``Labels_lake_Train.txt`` has an entry that is no label.

    Raises:
        DataError: no file of labels is there, one is malformed or has another number of lines than
            its list, or an image is not in the list of all.
    """
    near = lists["train"]
    everything = copy.find("ImageList/Imagelist.txt", "Imagelist.txt", near=near)
    labels = _folder(copy, near, "AllLabels", f"Labels_{NAMES[0]}.txt")
    if everything is None or labels is None:
        return {
            split: (keys[split], _labels_of(copy, lists[split], split, len(keys[split])))
            for split in SPLITS
        }
    row = {key: i for i, key in enumerate(read_keys(everything, AGAIN))}
    files = [labels / f"Labels_{name}.txt" for name in NAMES]
    targets_NC = _read_columns(files, everything, len(row), AGAIN)
    for split in SPLITS:
        for number, key in enumerate(keys[split], start=1):
            if key not in row:
                raise DataError(
                    f"{lists[split]} line {number}: {key!r} is not in {everything}; write the "
                    "paths as they are written there"
                )
    rows = {split: [row[key] for key in keys[split]] for split in SPLITS}
    return {split: (keys[split], targets_NC[rows[split]]) for split in SPLITS}


def _labels_of(copy: Copy, listed: Path, split: Split, images: int) -> Targets:
    """int8 [N, C] from files that have the lines of one list."""
    part, other = _PART[split]
    if labels := _folder(copy, listed, "TrainTestLabels", f"Labels_{NAMES[0]}_{part}.txt"):
        files = [labels / f"Labels_{name}_{part}.txt" for name in NAMES]
        remedy = "put AllLabels of Groundtruth.zip and ImageList/Imagelist.txt beside it"
        return _read_columns(files, listed, images, remedy)
    for name in (f"Labels_{part}.txt", f"formatted_{other}_labels.npy"):
        if file := copy.find(name, near=listed):
            return _read_matrix(file, listed, images)
    there = _folder(copy, listed, "AllLabels", f"Labels_{NAMES[0]}.txt")
    hints = [f"{there} is read together with ImageList/Imagelist.txt"] if there else []
    raise copy.lacks(f"Groundtruth/AllLabels/Labels_{NAMES[0]}.txt", *hints)


def _folder(copy: Copy, near: Path, folder: str, file: str) -> Path | None:
    """The folder of the label files, whatever its name; None if there are none."""
    names = (f"Groundtruth/{folder}/{file}", f"{folder}/{file}", file)
    found = copy.find(*names, near=near)
    return found.parent if found else None


def _read_columns(files: list[Path], images: Path, lines: int, remedy: str) -> Targets:
    """int8 [N, C] from one file per label, with 0 or 1 for each of the N images."""
    targets_NC = np.empty((lines, len(files)), np.int8)
    for c, file in enumerate(files):
        marks = np.frombuffer(read_bytes(file, remedy), np.uint8)
        marks = marks[marks > ord(" ")]
        if len(marks) != lines or not np.isin(marks, (ord("0"), ord("1"))).all():
            values = [line.strip() for line in read_lines(file, remedy)]
            for number, value in enumerate(values, start=1):
                if value not in ("0", "1"):
                    raise DataError(f"{file} line {number}: {value!r} is neither 0 nor 1; {remedy}")
            raise DataError(
                f"{file} has {len(values)} lines, but {images} lists {lines} images; {remedy}"
            )
        targets_NC[:, c] = marks == ord("1")
    return targets_NC


def _read_matrix(file: Path, images: Path, lines: int) -> Targets:
    """int8 [N, C] from one file with a row per image, in the official order of labels."""
    matrix = load_array(file)
    if matrix.shape != (lines, len(NAMES)) or not np.isin(matrix, (0, 1)).all():
        raise DataError(
            f"{file} has the shape {matrix.shape}, but {images} lists {lines} images with 81 "
            "labels of 0 or 1; take both from one source"
        )
    return matrix.astype(np.int8)


def load_array(file: Path) -> NDArray[Any]:
    """Load an .npy of plain values, or a text of numbers."""
    try:
        found = np.load(file) if file.suffix == ".npy" else np.loadtxt(file, np.int8, ndmin=2)
        return np.asarray(found)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} is no array of plain values: {error}; copy it again") from error
