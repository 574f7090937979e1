"""MS COCO (Lin et al., ECCV 2014), image-level labels from the instance annotations.

A label is present where at least one instance of it, crowds included, is annotated. Keys are image
ids, which are unique over COCO; samples are sorted by id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import Archive, DataError, Dataset, DatasetCard, Edition, Index, Split, SplitCard
from mlbench_plugins.datasets.instances import Instances, read_cached
from mlbench_plugins.datasets.photographs import (
    FINE_TUNING,
    choose,
    is_folder,
    locate,
    refuse_shared,
)

Year = Literal[2014, 2017]

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
_SPLITS: dict[Year, dict[str, SplitCard]] = {
    2014: {
        "train": SplitCard(images=82_081, positives=241_035),
        # From code, not from a paper: what ML-GCN's, ASL's and CSRA's filters of images keep.
        "test": SplitCard(images=40_137),
        "train with unlabelled": SplitCard(images=82_783, positives=241_035),
        "test with unlabelled": SplitCard(images=40_504),
    },
    2017: {
        "train": SplitCard(images=117_266, positives=342_996),
        "test": SplitCard(images=4_952, positives=14_631),
        "train with unlabelled": SplitCard(images=118_287, positives=342_996),
        "test with unlabelled": SplitCard(images=5_000, positives=14_631),
    },
}
_IDENTITIES: dict[Year, dict[str, str]] = {
    2014: {},
    2017: {"f46442bc2bdf71a1": "coco2017", "a6ec8c9e69782c4f": "coco-mini"},
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


_ARCHIVES: dict[Year, tuple[Archive, ...]] = {
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


def _card(year: Year) -> DatasetCard:
    known = _IDENTITIES[year]
    return DatasetCard(
        title=f"MS COCO {year}",
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
        splits=_SPLITS[year],
        identities=known,
        editions={name: _EDITIONS[name] for name in known.values()},
        validation={name: _VALIDATION[name] for name in known.values()},
        budget=FINE_TUNING,
        notes="Test is the official val split. An object that nobody annotated counts as absent.",
        archives=_ARCHIVES[year],
    )


class CocoYear(Dataset):
    """The two official splits of one year; the base class of all names of COCO.

    Args:
        root: the folder with ``annotations``, ``train<year>`` and ``val<year>``, or a folder that
            has it as ``coco`` or ``coco<year>``.
        cache: where the parsed labels of a json are kept.
        year: of the release.
        unlabelled: keep images that no instance is annotated in.

    Raises:
        DataError: the release is not there, or the json of train is damaged.
    """

    def __init__(self, root: Path | None, cache: Path, year: Year, unlabelled: bool) -> None:
        choose("coco", "year", year, get_args(Year))
        choose("coco", "unlabelled", unlabelled, (True, False))
        self._cache, self._year, self._unlabelled = cache, year, unlabelled
        self._parts: dict[Split, str] = {"train": f"train{year}", "test": f"val{year}"}
        places = (".", "coco", f"coco{year}", "COCO")
        archives = ", ".join(archive.name for archive in _ARCHIVES[year])
        self._folder = locate(root, places, self._json("train"), f"COCO {year} ({archives})")
        self._instances: dict[Split, Instances] = {}
        self.names = self._load("train").names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id.

        Raises:
            DataError: the json is missing, malformed or contradicts itself, the folder of images
                is missing, or the two splits have different categories or share an image.
        """
        train, found = self._load("train"), self._load(split)
        annotations = self._folder / self._json(split)
        remedy = f"take both jsons in {annotations.parent} from one release"
        if found.names != train.names:
            raise DataError(f"{annotations} and that of train list different categories; {remedy}")
        images = self._folder / self._parts[split]
        if not is_folder(images):
            raise DataError(f"the folder {images} is missing; unpack {images.name}.zip there")
        keys = found.ids.astype(str).tolist()
        if split == "test":
            refuse_shared(train.ids.astype(str).tolist(), keys, remedy)
        rows = np.flatnonzero(found.targets.any(axis=1) | self._unlabelled).tolist()
        if not rows:
            raise DataError(
                f"{annotations}: none of its {len(keys)} images has an annotation; unpack COCO's "
                "annotations again, or keep such images with the option unlabelled=true"
            )
        files = [images / found.files[i] for i in rows]
        return Index(files, [keys[i] for i in rows], found.targets[rows])

    def official_split(self, split: Split) -> str:
        """The card has the annotated images of a split, and all of them."""
        return f"{split} with unlabelled" if self._unlabelled else split

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Instances of each label in these images of train, a crowd counted as one: [N, C]."""
        instances = self._load("train")
        rows = np.searchsorted(instances.ids, np.array(keys, dtype=np.int64))
        return instances.objects[rows]

    def _load(self, split: Split) -> Instances:
        if split not in self._instances:
            self._instances[split] = read_cached(self._folder / self._json(split), self._cache)
        return self._instances[split]

    def _json(self, split: Split) -> str:
        return f"annotations/instances_{self._parts[split]}.json"


class COCO2014(CocoYear):
    """COCO 2014, as in the older papers; train is ``train2014``, test is ``val2014``.

    Args:
        root, cache: see ``CocoYear``.
        unlabelled: keep images that no instance is annotated in. SSGRL and Query2Label keep them;
            ML-GCN, MSRN, ASL and most others do not.
    """

    card = _card(2014)

    def __init__(self, root: Path | None, cache: Path, unlabelled: bool = False) -> None:
        super().__init__(root, cache, 2014, unlabelled)


class COCO2017(CocoYear):
    """COCO 2017; train is ``train2017``, test is ``val2017``. Runs are recorded as ``coco``.

    Args:
        root, cache, unlabelled: see ``COCO2014``.
    """

    card = _card(2017)

    def __init__(self, root: Path | None, cache: Path, unlabelled: bool = False) -> None:
        super().__init__(root, cache, 2017, unlabelled)

    @staticmethod
    def recorded_as(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """``coco``, whose year is 2017 by default."""
        return "coco", dict(options)


class COCO(CocoYear):
    """COCO of either year. Runs on 2014 are recorded as ``coco2014``.

    Args:
        root, cache, unlabelled: see ``COCO2014``.
        year: 2017, or 2014 as in the older papers.
    """

    card = COCO2017.card

    def __init__(
        self, root: Path | None, cache: Path, year: Year = 2017, unlabelled: bool = False
    ) -> None:
        super().__init__(root, cache, year, unlabelled)
        self.card = COCO2014.card if year == 2014 else COCO2017.card

    @staticmethod
    def recorded_as(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The name of the year that ``options`` choose."""
        others = {option: value for option, value in options.items() if option != "year"}
        match options.get("year", 2017):
            case 2014:
                return "coco2014", others
            case 2017:
                return "coco", others
            case _:
                return name, dict(options)
