"""MS COCO (Lin et al., ECCV 2014), image-level labels from the instance annotations.

A label is present where at least one instance of it, crowds included, is annotated. Keys are image
ids, which are unique over COCO; samples are sorted by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import Archive, Dataset, DatasetCard, Edition, Index, Split, SplitCard
from mlbench_plugins.datasets.coco_release import Release, Year
from mlbench_plugins.datasets.photographs import FINE_TUNING, choose

BY_ID = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
    *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
    *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
    *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
    *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""The 80 categories in the order of their ids, 1 to 90 with gaps."""
_LABELLED = {
    2014: {
        "train": SplitCard(images=82_081, positives=241_035),
        # From code, not from a paper: what ML-GCN's, ASL's and CSRA's filters of images keep.
        "test": SplitCard(images=40_137),
    },
    2017: {
        "train": SplitCard(images=117_266, positives=342_996),
        "test": SplitCard(images=4_952, positives=14_631),
    },
}
_ALL = {
    2014: {
        "train2014 with unlabelled": SplitCard(images=82_783, positives=241_035),
        "val2014 with unlabelled": SplitCard(images=40_504),
    },
    2017: {
        "train2017 with unlabelled": SplitCard(images=118_287, positives=342_996),
        "val2017 with unlabelled": SplitCard(images=5_000, positives=14_631),
    },
}
_EDITIONS = {
    "coco2017": Edition(
        train_images=117_266,
        test_images=4_952,
        test_keys="38daecdc85579659",
        test="c0e2cb860238ad87",
    ),
    "coco-mini": Edition(
        train_images=2_089, test_images=915, test_keys="81567e2d567f85fa", test="e6a6c1605e6ff03f"
    ),
}
_VALIDATION = {
    "coco2017": "0b8a4a6ba18dc6a0d4d02c473ef8173b8faca41a4e3344ce6e9ecc5e4eb3b57c",
    "coco-mini": "1be9a30522baecd60757a9e43ffccca4b25c5f403715ff52fa7e5056080f0277",
}


def _archive(path: str, size: int, sha256: str, unpacked_bytes: int) -> Archive:
    return Archive(
        name=path.partition("/")[2],
        url=f"http://images.cocodataset.org/{path}",
        sha256=sha256,
        bytes=size,
        unpacked_bytes=unpacked_bytes,
        into="coco",
    )


_ARCHIVES = {
    2014: (
        _archive(
            "annotations/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            2 << 30,
        ),
        _archive(
            "zips/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            16 << 30,
        ),
        _archive(
            "zips/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            8 << 30,
        ),
    ),
    2017: (
        _archive(
            "annotations/annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            2 << 30,
        ),
        _archive(
            "zips/train2017.zip",
            19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            24 << 30,
        ),
        _archive(
            "zips/val2017.zip",
            815_585_330,
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            2 << 30,
        ),
    ),
}
"""COCO publishes no checksums; these are the ones that independent mirrors agree on."""


def _card(
    title: str, splits: dict[str, SplitCard], identities: dict[str, str], year: Year = 2017
) -> DatasetCard:
    return DatasetCard(
        title=title,
        bibtex="""@inproceedings{lin2014microsoft,
  title     = {Microsoft {COCO}: Common Objects in Context},
  author    = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and
               Perona, Pietro and Ramanan, Deva and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {European Conference on Computer Vision (ECCV)},
  pages     = {740--755},
  year      = {2014}
}""",
        licence="annotations CC BY 4.0; photographs from Flickr under Flickr's terms of use",
        home="https://cocodataset.org",
        family="coco",
        labels=len(BY_ID),
        orders={"official": BY_ID, "alphabetical": tuple(sorted(BY_ID))},
        splits=splits,
        identities=identities,
        editions={name: _EDITIONS[name] for name in identities.values()},
        validation={name: _VALIDATION[name] for name in identities.values()},
        budget=FINE_TUNING,
        notes="Test is the official val split. An object that nobody annotated counts as absent.",
        archives=_ARCHIVES[year],
    )


class COCO(Dataset):
    """COCO of either year; train is ``train<year>``, test is ``val<year>``.

    Args:
        root: the folder with ``annotations``, ``train<year>`` and ``val<year>``, or a folder with
            such a ``coco`` or ``coco<year>``.
        cache: where the labels of a json are kept, so that it is parsed once.
        year: 2017, or 2014 as in the older papers.
        unlabelled: keep images that no instance is annotated in. SSGRL and Query2Label keep them,
            ML-GCN, MSRN, ASL and most others do not.
    """

    card = _card(
        "MS COCO",
        {
            **_LABELLED[2017],
            **_ALL[2017],
            "train2014": _LABELLED[2014]["train"],
            "val2014": _LABELLED[2014]["test"],
            **_ALL[2014],
        },
        {"f46442bc2bdf71a1": "coco2017", "a6ec8c9e69782c4f": "coco-mini"},
    )

    def __init__(
        self, root: Path | None, cache: Path, year: Year = 2017, unlabelled: bool = False
    ) -> None:
        choose("coco", "year", year, get_args(Year))
        self._release = Release(root, cache, year, unlabelled)
        self.names = self._release.names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id (see ``Release.index``)."""
        return self._release.index(split)

    def official_split(self, split: Split) -> str:
        """What the card calls a split of this year."""
        return self._release.official_split(split, 2017)

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """How many instances of each label these images of train have, a crowd counted as one."""
        return self._release.objects(keys)


class COCO2014(Dataset):
    """COCO 2014, as the older papers have it; train is ``train2014``, test is ``val2014``.

    Args:
        root: the folder with ``annotations``, ``train2014`` and ``val2014``, or a folder with such
            a ``coco`` or ``coco2014``.
        cache: where the labels of a json are kept, so that it is parsed once.
        unlabelled: keep images that no instance is annotated in. SSGRL and Query2Label keep them,
            ML-GCN, MSRN, ASL and most others do not.
    """

    card = _card("MS COCO 2014", {**_LABELLED[2014], **_ALL[2014]}, {}, 2014)

    def __init__(self, root: Path | None, cache: Path, unlabelled: bool = False) -> None:
        self._release = Release(root, cache, 2014, unlabelled)
        self.names = self._release.names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id (see ``Release.index``)."""
        return self._release.index(split)

    def official_split(self, split: Split) -> str:
        """What the card calls a split of this year."""
        return self._release.official_split(split, 2014)

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """How many instances of each label these images of train have, a crowd counted as one."""
        return self._release.objects(keys)


class COCO2017(Dataset):
    """COCO 2017; train is ``train2017``, test is ``val2017``.

    Args:
        root: the folder with ``annotations``, ``train2017`` and ``val2017``, or a folder with such
            a ``coco`` or ``coco2017``.
        cache: where the labels of a json are kept, so that it is parsed once.
        unlabelled: keep images that no instance is annotated in.
    """

    card = _card("MS COCO 2017", {**_LABELLED[2017], **_ALL[2017]}, COCO.card.identities)

    def __init__(self, root: Path | None, cache: Path, unlabelled: bool = False) -> None:
        self._release = Release(root, cache, 2017, unlabelled)
        self.names = self._release.names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id (see ``Release.index``)."""
        return self._release.index(split)

    def official_split(self, split: Split) -> str:
        """What the card calls a split of this year."""
        return self._release.official_split(split, 2017)

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """How many instances of each label these images of train have, a crowd counted as one."""
        return self._release.objects(keys)
