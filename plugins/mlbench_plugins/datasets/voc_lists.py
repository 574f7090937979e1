"""One year of PASCAL VOC: ``ImageSets/Main``, and for counts of objects ``Annotations``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Index, Split
from mlbench_plugins.datasets.photographs import locate, read_lines, refuse_shared
from mlbench_plugins.datasets.voc_objects import count_objects

Difficult = Literal["unknown", "positive", "negative"]
Part = Literal["trainval", "train", "val"]
TestPart = Literal["test", "trainval", "train", "val"]
Labels = NDArray[np.int8]

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_ARCHIVES = {
    2007: "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar",
    2012: "VOCtrainval_11-May-2012.tar",
}
_KEY = {2007: re.compile(r"\d{6}"), 2012: re.compile(r"\d{4}_\d{6}")}
_TARGET = {"unknown": -1, "positive": 1, "negative": 0}


class Lists:
    """The lists of one year; each file is read once.

    Args:
        root: the folder that ``--data`` names.
        year: 2007 or 2012.
        parts: the official lists that are the splits.

    Raises:
        DataError: no such folder.
    """

    def __init__(self, root: Path | None, year: int, parts: dict[Split, TestPart]) -> None:
        name, lower = f"VOC{year}", f"voc{year}"
        places = (
            *(f"VOCdevkit/{name}", name, "."),
            *(f"{lower}/VOCdevkit/{name}", f"{lower}/{name}", lower),
        )
        self.what = f"VOC {year} (VOCdevkit/{name} of {_ARCHIVES[year]})"
        self.folder = locate(root, places, "ImageSets/Main", self.what)
        self.year = year
        self.parts = parts
        self._labels: dict[Split, tuple[list[str], Labels]] = {}
        self._objects: dict[str, NDArray[np.int32]] = {}

    def index(self, split: Split, difficult_train: Difficult) -> Index:
        """The samples of a split, once it is known that no image of it is in the other."""
        if not self._labels:
            read = {split: self._read(part) for split, part in self.parts.items()}
            parts = (self.parts["train"], self.parts["test"])
            refuse_shared(
                read["train"][0],
                read["test"][0],
                f"they are {' and '.join(str(self._file(NAMES[0], p)) for p in parts)}: unpack "
                "them again, or choose train_split and test_split that share no image",
            )
            self._labels = read
        keys, labels_NC = self._labels[split]
        unknown = np.int8(_TARGET[difficult_train if split == "train" else "unknown"])
        targets_NC = np.where(labels_NC == 0, unknown, labels_NC == 1).astype(np.int8)
        return Index([self.folder / "JPEGImages" / f"{k}.jpg" for k in keys], keys, targets_NC)

    def objects(self, keys: Sequence[str], difficult_train: Difficult) -> NDArray[np.int32]:
        """Objects of each class in these images; difficult ones where they count as positives.

        Raises:
            DataError: an annotation is missing or malformed.
        """
        places, difficult = self.folder / "Annotations", difficult_train == "positive"
        if new := [key for key in keys if key not in self._objects]:
            found = count_objects(places, new, NAMES, difficult=difficult)
            self._objects |= zip(new, found, strict=True)
        return np.stack([self._objects[key] for key in keys])

    def validation_keys(self) -> list[str] | None:
        """Image names of the list val if trainval is trained on."""
        if self.parts["train"] != "trainval":
            return None
        return self._parse(self._file(NAMES[0], "val"))[0]

    def _file(self, name: str, part: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{name}_{part}.txt"

    def _read(self, part: TestPart) -> tuple[list[str], Labels]:
        """Image names [N] and labels int8 [N, C] in {1, 0, -1}, as they stand in the lists."""
        files = [self._file(name, part) for name in NAMES]
        keys, _ = self._parse(files[0])
        columns = []
        for file in files:
            found, column = self._parse(file)
            if found != keys:
                raise DataError(_disagreement(files[0], keys, file, found))
            columns.append(column)
        return keys, np.stack(columns, axis=1)

    def _parse(self, file: Path) -> tuple[list[str], Labels]:
        """Image names [N] and labels int8 [N] in {1, 0, -1} of one class."""
        values: dict[str, int] = {}
        archives = "both archives" if self.year == 2007 else "the archive"
        lines = read_lines(file, f"unpack {archives} of {self.what}")
        for number, line in enumerate(lines, start=1):
            where = f"{file} line {number}"
            match line.split():
                case [key, "1" | "-1" | "0"] if not _KEY[self.year].fullmatch(key):
                    raise DataError(
                        f"{where}: {key!r} is no image of VOC {self.year}; name the folder that "
                        f"holds {self.what} with --data DIR"
                    )
                case [key, ("1" | "-1" | "0") as value] if key not in values:
                    values[key] = int(value)
                case [key, "1" | "-1" | "0"]:
                    raise DataError(
                        f"{where}: image {key} stands in the list twice; unpack {archives} again"
                    )
                case _:
                    raise DataError(
                        f"{where}: {line!r} is not 'image 1', 'image -1' or 'image 0'; unpack "
                        f"{archives} again"
                    )
        return list(values), np.fromiter(values.values(), np.int8, len(values))


def _disagreement(file: Path, keys: list[str], other: Path, found: list[str]) -> str:
    pairs = enumerate(zip(keys, found, strict=False), start=1)
    line = next((i for i, (a, b) in pairs if a != b), min(len(keys), len(found)) + 1)
    return (
        f"{other} line {line} does not list the image that {file.name} lists there "
        f"({len(found)} and {len(keys)} images); all classes must list the same images in the "
        "same order, so unpack the archive again"
    )
