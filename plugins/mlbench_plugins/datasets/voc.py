"""PASCAL VOC 2007 and 2012 (Everingham et al.), image-level labels of the classification task.

Labels are read from ``ImageSets/Main/<class>_<list>.txt``. A line says 1 (present), -1 (absent)
or 0 (only "difficult" objects: unknown). The XML files are opened only for counts of objects, and
for the labels of copies that have ``<list>.txt`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.text import shorten
from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.photographs import (
    choose,
    read_card,
    read_keys,
    read_lines,
    read_xml,
    refuse_shared,
)

Difficult = Literal["unknown", "positive", "negative"]
Part = Literal["trainval", "train", "val"]
TestPart = Literal["test", "trainval", "train", "val"]

NAMES = read_card("voc", "voc2007").orders["official"]
_MAIN = "ImageSets/Main"
_TARGET = {"unknown": -1, "positive": 1, "negative": 0}


class VocYear(Dataset):
    """Two official lists of one year; the base class of both years.

    Keys are the official image names. In the test split difficult labels are always unknown, as in
    the official evaluation.

    Args:
        root: the folder that has, at any depth, a folder with ``ImageSets/Main`` of this year, or
            several, such as one for each archive.
        year: 2007 or 2012.
        train_split, test_split: the official lists.
        called: official list -> its name on the card, where that is not ``the list NAME``.
        difficult_train: what a difficult label counts as in training.

    Raises:
        DataError: the folder is not there, or an option has an unknown value.
    """

    names = NAMES

    def __init__(
        self,
        root: Path | None,
        year: int,
        train_split: Part,
        test_split: TestPart,
        called: dict[str, str],
        difficult_train: Difficult,
    ) -> None:
        name, lower = f"VOC{year}", f"voc{year}"
        choose(lower, "difficult_train", difficult_train, get_args(Difficult))
        choose(lower, "train_split", train_split, get_args(Part))
        choose(lower, "test_split", test_split, get_args(TestPart))
        places = (
            *(f"VOCdevkit/{name}", name, "."),
            *(f"{lower}/VOCdevkit/{name}", f"{lower}/{name}", lower),
        )
        archives = " and ".join(archive.name for archive in self.card.archives)
        self._what = f"VOC {year} (VOCdevkit/{name} of {archives})"
        self._copy = Copy(root, self._what, places)
        self._year = year
        self._called, self._difficult_train = called, difficult_train
        self._parts: dict[Split, TestPart] = {"train": train_split, "test": test_split}
        self._labels: dict[Split, tuple[list[str], NDArray[np.int8]]] = {}
        self._lists = {part: self._find(part) for part in self._parts.values()}
        self._folders = list(dict.fromkeys(file.parents[2] for file in self._lists.values()))

    def index(self, split: Split) -> Index:
        """The samples in the order of the official lists.

        Raises:
            DataError: a list is missing or malformed, the lists of two classes do not agree, or
                the two splits have an image in common.
        """
        if not self._labels:
            read = {split: self._read(part) for split, part in self._parts.items()}
            lists = " and ".join(map(str, self._lists.values()))
            remedy = f"unpack {lists} again, or choose lists that share no image"
            refuse_shared(read["train"][0], read["test"][0], remedy)
            self._labels = read
        keys, labels_NC = self._labels[split]
        unknown = np.int8(_TARGET[self._difficult_train if split == "train" else "unknown"])
        targets_NC = np.where(labels_NC == 0, unknown, labels_NC == 1).astype(np.int8)
        places = [*(folder / "JPEGImages" for folder in self._folders), *self._folders]
        files = self._copy.pictures([f"{key}.jpg" for key in keys], places)
        return Index(files, keys, targets_NC)

    def official_split(self, split: Split) -> str:
        """The card's name of the official list that a split is."""
        part = self._parts[split]
        return self._called.get(part, f"the list {part}")

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Count each class's objects, and difficult ones if they train as positives: [N, C].

        Raises:
            DataError: an XML file is missing or malformed.
        """
        plain_NC, difficult_NC = self._counts(keys)
        return plain_NC + difficult_NC if self._difficult_train == "positive" else plain_NC

    def validation_keys(self) -> Sequence[str] | None:
        """The official list val, if trainval is trained on."""
        if self._parts["train"] != "trainval":
            return None
        return self._read("val")[0]

    def _find(self, part: str) -> Path:
        """A part's list of the first class, or its list of images if classes have no lists."""
        for name in (f"{_MAIN}/{NAMES[0]}_{part}.txt", f"{_MAIN}/{part}.txt"):
            if found := self._copy.find(name, fits=self._is_of_year):
                return found
        others = self._copy.all(_MAIN)
        said = f"{shorten(others)} lacks this list, or is of another year"
        raise self._copy.lacks(f"{_MAIN}/{NAMES[0]}_{part}.txt", *([said] if others else []))

    def _is_of_year(self, file: Path) -> bool:
        """False for a list of another year, by the folders above it or its first image."""
        path = str(file.relative_to(self._copy.root))
        years = re.findall(r"(?:voc|-)(20\d\d)", path, re.IGNORECASE)
        image = file.read_text("utf-8", "replace").split()[:1]
        other = r"\d{4}_\d{6}" if self._year == 2007 else r"\d{6}"
        return (not years or str(self._year) in years) and not re.fullmatch(other, "".join(image))

    def _counts(self, keys: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Count each class's plain and difficult objects in the XML files: [N, C] each."""
        homes = [folder / "Annotations" for folder in self._folders]
        counts = []
        for name in (f"{key}.xml" for key in keys):
            home = next((home for home in homes if (home / name).exists()), homes[0])
            counts.append(_count_objects(home / name))
        plain_NC, difficult_NC = np.stack(counts, axis=1)
        return plain_NC, difficult_NC

    def _read(self, part: TestPart) -> tuple[list[str], NDArray[np.int8]]:
        """Image names [N] and labels int8 [N, C] in {1, 0, -1}, as in the lists."""
        first = self._lists.get(part) or self._find(part)
        if first.name.lower() == f"{part}.txt":
            keys = read_keys(first, "unpack the archive again")
            plain_NC, difficult_NC = self._counts(keys)
            return keys, np.where(plain_NC, 1, np.where(difficult_NC, 0, -1)).astype(np.int8)
        files = [first.with_name(f"{name}_{part}.txt") for name in NAMES]
        keys, _ = self._parse(files[0])
        columns = []
        for file in files:
            found, column = self._parse(file)
            if found != keys:
                raise DataError(
                    f"{file} does not list the images of {files[0].name} in the same order "
                    f"({len(found)} and {len(keys)} images); unpack the archive again"
                )
            columns.append(column)
        return keys, np.stack(columns, axis=1)

    def _parse(self, file: Path) -> tuple[list[str], NDArray[np.int8]]:
        """Image names [N] and labels int8 [N] in {1, 0, -1} of one class."""
        values: dict[str, int] = {}
        remedy = f"unpack {self._what} again, or name its folder with --data DIR"
        for number, line in enumerate(read_lines(file, remedy), start=1):
            where = f"{file} line {number}"
            match line.split():
                case [key, "1" | "-1" | "0"] if key in values:
                    raise DataError(f"{where}: image {key} is listed twice; {remedy}")
                case [key, "1" | "-1" | "0" as value]:
                    values[key] = int(value)
                case _:
                    raise DataError(
                        f"{where}: {line!r} is not 'image 1', 'image -1' or 'image 0'; {remedy}"
                    )
        return list(values), np.fromiter(values.values(), np.int8, len(values))


def _count_objects(file: Path) -> NDArray[np.int32]:
    """Count each class's plain and difficult objects in an XML annotation: [2, C]."""
    remedy = f"its objects need the folder {file.parent} of VOC's archive; unpack it again"
    root = read_xml(file, remedy)
    counts_2C = np.zeros((2, len(NAMES)), np.int32)
    for item in root.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if name not in NAMES:
            raise DataError(f"{file} has an object {name!r}, which is no class of VOC; {remedy}")
        difficult = (item.findtext("difficult") or "0").strip() != "0"
        counts_2C[int(difficult), NAMES.index(name)] += 1
    return counts_2C


class VOC2007(VocYear):
    """VOC 2007; train is ``trainval``, test is ``test``.

    Args:
        root: see ``VocYear``.
        cache: not used.
        difficult_train: what a difficult label counts as in training. ML-GCN and MSRN train with
            "positive", SSGRL and CSRA with "negative".
        train_split: the official list that is trained on.
        test_split: the official list that is scored.
    """

    card = read_card("voc", "voc2007")

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        difficult_train: Difficult = "unknown",
        train_split: Part = "trainval",
        test_split: TestPart = "test",
    ) -> None:
        called = {"trainval": "train", "test": "test"}
        super().__init__(root, 2007, train_split, test_split, called, difficult_train)


class VOC2012(VocYear):
    """VOC 2012; train is ``train``, and ``val`` is scored.

    Published scores on "VOC 2012 test" cannot be reproduced: its labels are not public. The
    arguments are those of ``VOC2007``.
    """

    card = read_card("voc", "voc2012")

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        difficult_train: Difficult = "unknown",
        train_split: Part = "train",
        test_split: Part = "val",
    ) -> None:
        if "test" in (train_split, test_split):
            raise DataError(
                "the labels of VOC 2012's test split are not public, only the challenge's server "
                f"scores it; choose from {', '.join(get_args(Part))}"
            )
        called = {"train": "train", "val": "test"}
        super().__init__(root, 2012, train_split, test_split, called, difficult_train)
