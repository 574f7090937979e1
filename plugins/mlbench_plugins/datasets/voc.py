"""PASCAL VOC 2007 (Everingham et al., IJCV 2010), image-level labels of the classification task."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, DatasetCard, Index, Split, SplitCard
from mlbench_plugins.datasets.photographs import FINE_TUNING, locate

Difficult = Literal["unknown", "positive", "negative"]
TrainSplit = Literal["trainval", "train", "val"]

_TARGET = {"unknown": -1, "positive": 1, "negative": 0}
_PLACES = (
    *("VOCdevkit/VOC2007", "VOC2007", "."),
    *("voc2007/VOCdevkit/VOC2007", "voc2007/VOC2007", "voc2007"),
)
_WHAT = "VOC 2007 (VOCdevkit/VOC2007 of VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar)"


class VOC2007(Dataset):
    """Labels from ``ImageSets/Main/<class>_<split>.txt``; train is ``trainval``, test is ``test``.

    A line of those files says 1 (present), -1 (absent) or 0 (only "difficult" objects: unknown).
    In the test split difficult labels are always unknown, as in the official evaluation.

    Args:
        root: the folder with VOCdevkit, VOCdevkit, VOC2007 itself, or a folder with ``voc2007``.
        cache: not used.
        difficult_train: what a difficult label counts as in training. ML-GCN and MSRN train with
            "positive", SSGRL and CSRA with "negative".
        train_split: the official list that is trained on.
    """

    names = (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
        *("train", "tvmonitor"),
    )
    card = DatasetCard(
        title="PASCAL VOC 2007",
        bibtex="""@article{everingham2010pascal,
  title   = {The {PASCAL} Visual Object Classes ({VOC}) Challenge},
  author  = {Everingham, Mark and Van Gool, Luc and Williams, Christopher K. I. and
             Winn, John and Zisserman, Andrew},
  journal = {International Journal of Computer Vision},
  volume  = {88},
  number  = {2},
  pages   = {303--338},
  year    = {2010}
}""",
        licence="photographs from Flickr under Flickr's terms of use; for research",
        home="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        splits={"train": SplitCard(images=5011), "test": SplitCard(images=4952)},
        identities={
            "87b93ae92fc3233e": "voc2007",
            "9739dbf0832a1e6c": "voc2007-difficult-negative",
            "59e910f8d4f8e6aa": "voc2007-difficult-positive",
            "77c57c04a0936f9a": "voc2007-mini",
            "1abc8e6193f08027": "voc2007-mini-difficult-negative",
            "cc7eb47ed0e8ae4f": "voc2007-mini-difficult-positive",
        },
        budget=FINE_TUNING,
        notes="Difficult labels are unknown: they weigh nothing in the loss and in the metrics.",
    )

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        difficult_train: Difficult = "unknown",
        train_split: TrainSplit = "trainval",
    ) -> None:
        _one_of("difficult_train", difficult_train, get_args(Difficult))
        _one_of("train_split", train_split, get_args(TrainSplit))
        self.folder = locate(root, _PLACES, "ImageSets/Main", _WHAT)
        self.lists: dict[Split, str] = {"train": train_split, "test": "test"}
        self.difficult: dict[Split, Difficult] = {"train": difficult_train, "test": "unknown"}
        self._indices: dict[Split, Index] = {}

    def index(self, split: Split) -> Index:
        """The samples in the order of the official lists; keys are the official image names.

        Raises:
            DataError: a list is missing or malformed, or the lists of two classes do not agree.
        """
        if split not in self._indices:
            self._indices[split] = self._read(split)
        return self._indices[split]

    def _read(self, split: Split) -> Index:
        lists = self.folder / "ImageSets" / "Main"
        files = [lists / f"{name}_{self.lists[split]}.txt" for name in self.names]
        keys, _ = _parse(files[0])
        columns = []
        for file in files:
            found, column = _parse(file)
            if found != keys:
                raise DataError(_disagreement(files[0], keys, file, found))
            columns.append(column)
        labels_NC = np.stack(columns, axis=1)
        unknown = np.int8(_TARGET[self.difficult[split]])
        targets_NC = np.where(labels_NC == 0, unknown, labels_NC == 1).astype(np.int8)
        return Index([self.folder / "JPEGImages" / f"{k}.jpg" for k in keys], keys, targets_NC)


def _parse(file: Path) -> tuple[list[str], NDArray[np.int8]]:
    """Image names [N] and labels int8 [N] in {1, 0, -1}, as they stand in one class's list."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{file} is missing; unpack both archives of {_WHAT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}; unpack {_WHAT} again") from error
    values: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        match line.split():
            case [key, ("1" | "-1" | "0") as value] if key not in values:
                values[key] = int(value)
            case [key, "1" | "-1" | "0"]:
                raise DataError(f"{file} line {number}: image {key} stands in the list twice")
            case _:
                raise DataError(
                    f"{file} line {number}: {line!r} is not 'image 1', 'image -1' or 'image 0'"
                )
    return list(values), np.fromiter(values.values(), np.int8, len(values))


def _disagreement(file: Path, keys: list[str], other: Path, found: list[str]) -> str:
    pairs = enumerate(zip(keys, found, strict=False), start=1)
    line = next((i for i, (a, b) in pairs if a != b), min(len(keys), len(found)) + 1)
    return (
        f"{other} line {line} does not list the image that {file.name} lists there "
        f"({len(found)} and {len(keys)} images); all classes must list the same images in the "
        f"same order, so unpack {_WHAT} again"
    )


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(f"voc2007 has no {option}={value!r}; choose from {', '.join(known)}")
