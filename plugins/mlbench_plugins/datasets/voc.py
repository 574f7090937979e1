"""PASCAL VOC 2007 and 2012 (Everingham et al.), image-level labels of the classification task.

Labels are read from ``ImageSets/Main/<class>_<list>.txt``. A line says 1 (present), -1 (absent)
or 0 (only "difficult" objects: unknown). The XML files are opened only for counts of objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import (
    Archive,
    DataError,
    Dataset,
    DatasetCard,
    Edition,
    Index,
    Split,
    SplitCard,
)
from mlbench_plugins.datasets.photographs import FINE_TUNING, choose
from mlbench_plugins.datasets.voc_lists import NAMES, Difficult, Lists, Part, TestPart

_OXFORD = "http://host.robots.ox.ac.uk/pascal/VOC"
_VALIDATION_2007 = {
    "voc2007": "9e122e1f5e3a1130e4a3bae378e6760a4ddc97e68f9947200dcdde45969078a5",
    "voc2007-mini": "00fdc0bacd97ab8b3481170ea5bf79e3e431d5f89bc6952135c8c1a72bfdbb0b",
}
"""The official list val."""
_EDITIONS = {
    "voc2007": Edition(
        train_images=5_011, test_images=4_952, test_keys="e14f93dac92f03b3", test="e6f55758316a9557"
    ),
    "voc2007-mini": Edition(
        train_images=944, test_images=980, test_keys="c51abc92da48a777", test="a9b6e612ca1a3b61"
    ),
}
"""What becomes of difficult labels in training changes nothing here."""

_CALLED_2007 = {"trainval": "train", "test": "test"}
_CALLED_2012 = {"train": "train", "val": "test"}
"""Official list -> what the card calls it, where it is no ``the list NAME``."""


class VOC2007(Dataset):
    """VOC 2007; train is ``trainval``, test is ``test``. Keys are the official image names.

    In the split that is scored difficult labels are always unknown, as in the official evaluation.

    Args:
        root: the folder with VOCdevkit, VOCdevkit, VOC2007 itself, or a folder with ``voc2007``.
        cache: not used.
        difficult_train: what a difficult label counts as in training. ML-GCN and MSRN train with
            "positive", SSGRL and CSRA with "negative".
        train_split: the official list that is trained on.
        test_split: the official list that is scored.
    """

    names = NAMES
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
        labels=len(NAMES),
        orders={"official": NAMES},
        splits={
            "train": SplitCard(images=5011, positives=7306),
            "test": SplitCard(images=4952, positives=7013),
            "the list train": SplitCard(images=2501, positives=3688),
            "the list val": SplitCard(images=2510, positives=3618),
        },
        identities={
            "87b93ae92fc3233e": "voc2007",
            "9739dbf0832a1e6c": "voc2007-difficult-negative",
            "59e910f8d4f8e6aa": "voc2007-difficult-positive",
            "77c57c04a0936f9a": "voc2007-mini",
            "1abc8e6193f08027": "voc2007-mini-difficult-negative",
            "cc7eb47ed0e8ae4f": "voc2007-mini-difficult-positive",
        },
        validation={
            f"{edition}{difficult}": sha256
            for edition, sha256 in _VALIDATION_2007.items()
            for difficult in ("", "-difficult-negative", "-difficult-positive")
        },
        editions={
            name + difficult: edition
            for name, edition in _EDITIONS.items()
            for difficult in ("", "-difficult-negative", "-difficult-positive")
        },
        budget=FINE_TUNING,
        notes="Difficult labels are unknown: they weigh nothing in the loss and in the metrics.",
        archives=(
            Archive(
                name="VOCtrainval_06-Nov-2007.tar",
                url=f"{_OXFORD}/voc2007/VOCtrainval_06-Nov-2007.tar",
                sha256="7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
                bytes=460_032_000,
                unpacked_bytes=1 << 30,
            ),
            Archive(
                name="VOCtest_06-Nov-2007.tar",
                url=f"{_OXFORD}/voc2007/VOCtest_06-Nov-2007.tar",
                sha256="6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
                bytes=451_020_800,
                unpacked_bytes=1 << 30,
            ),
        ),
    )

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        difficult_train: Difficult = "unknown",
        train_split: Part = "trainval",
        test_split: TestPart = "test",
    ) -> None:
        choose("voc2007", "difficult_train", difficult_train, get_args(Difficult))
        choose("voc2007", "train_split", train_split, get_args(Part))
        choose("voc2007", "test_split", test_split, get_args(TestPart))
        self._lists = Lists(root, 2007, {"train": train_split, "test": test_split})
        self.difficult_train: Difficult = difficult_train

    def index(self, split: Split) -> Index:
        """The samples in the order of the official lists.

        Raises:
            DataError: a list is missing or malformed, the lists of two classes do not agree, or
                the two splits have an image in common.
        """
        return self._lists.index(split, self.difficult_train)

    def official_split(self, split: Split) -> str:
        """What the card calls the official list that a split is."""
        return _CALLED_2007.get(self._lists.parts[split], f"the list {self._lists.parts[split]}")

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Objects of each class in the XML files of these images of train (see ``Lists``)."""
        return self._lists.objects(keys, self.difficult_train)

    def validation_keys(self) -> Sequence[str] | None:
        """The official list val, where it is a part of what is trained on."""
        return self._lists.validation_keys()


class VOC2012(Dataset):
    """VOC 2012; train is ``train``, and ``val`` is scored. Keys are the official image names.

    The labels of the official test split are not public: only the challenge's evaluation server
    scores it, so published scores on "VOC 2012 test" cannot be had here.

    Args:
        root: the folder with VOCdevkit, VOCdevkit, VOC2012 itself, or a folder with ``voc2012``.
        cache: not used.
        difficult_train: what a difficult label counts as in training.
        train_split: the official list that is trained on.
        test_split: the official list that is scored; difficult labels are unknown there.
    """

    names = NAMES
    card = DatasetCard(
        title="PASCAL VOC 2012",
        bibtex="""@article{everingham2015pascal,
  title   = {The {PASCAL} Visual Object Classes Challenge: A Retrospective},
  author  = {Everingham, Mark and Eslami, S. M. Ali and Van Gool, Luc and
             Williams, Christopher K. I. and Winn, John and Zisserman, Andrew},
  journal = {International Journal of Computer Vision},
  volume  = {111},
  number  = {1},
  pages   = {98--136},
  year    = {2015}
}""",
        licence="photographs from Flickr under Flickr's terms of use; for research",
        home="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        family="voc2007",  # the authors' code treats the lists and objects of both years alike
        labels=len(NAMES),
        orders={"official": NAMES},
        splits={
            "train": SplitCard(images=5717),
            "test": SplitCard(images=5823),
            "the list trainval": SplitCard(images=11_540),
        },
        budget=FINE_TUNING,
        notes="What is scored is the list val: the labels of the official test split (10,991 "
        "images) are not public. Difficult labels are unknown: they weigh nothing in the loss and "
        "in the metrics.",
        archives=(
            Archive(
                name="VOCtrainval_11-May-2012.tar",
                url=f"{_OXFORD}/voc2012/VOCtrainval_11-May-2012.tar",
                sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
                bytes=1_999_639_040,
                unpacked_bytes=4 << 30,
            ),
        ),
    )

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        difficult_train: Difficult = "unknown",
        train_split: Part = "train",
        test_split: Part = "val",
    ) -> None:
        choose("voc2012", "difficult_train", difficult_train, get_args(Difficult))
        if "test" in (train_split, test_split):
            raise DataError(
                "the labels of VOC 2012's test split are not public, only the challenge's server "
                f"scores it; choose from {', '.join(get_args(Part))}"
            )
        choose("voc2012", "train_split", train_split, get_args(Part))
        choose("voc2012", "test_split", test_split, get_args(Part))
        self._lists = Lists(root, 2012, {"train": train_split, "test": test_split})
        self.difficult_train: Difficult = difficult_train

    def index(self, split: Split) -> Index:
        """The samples in the order of the official lists.

        Raises:
            DataError: a list is missing or malformed, the lists of two classes do not agree, or
                the two splits have an image in common.
        """
        return self._lists.index(split, self.difficult_train)

    def official_split(self, split: Split) -> str:
        """What the card calls the official list that a split is."""
        return _CALLED_2012.get(self._lists.parts[split], f"the list {self._lists.parts[split]}")

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Objects of each class in the XML files of these images of train (see ``Lists``)."""
        return self._lists.objects(keys, self.difficult_train)
