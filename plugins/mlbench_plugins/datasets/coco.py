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

from mlbench.types import DataError, Dataset, DatasetCard, Index, Split
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.instances import Instances, read_cached
from mlbench_plugins.datasets.photographs import choose, read_card, refuse_shared

Year = Literal[2014, 2017]

_CARDS: dict[Year, DatasetCard] = {
    2014: read_card("coco", "coco2014"),
    2017: read_card("coco", "coco2017"),
}


class CocoYear(Dataset):
    """The two official splits of one year; the base class of all names of COCO.

    Args:
        root: the folder that has, at any depth, the official jsons and images.
        cache: where the parsed labels of a json are kept.
        year: year of the release.
        unlabelled: keep images that no instance is annotated in.

    Raises:
        DataError: the release is not there, or the json of train is damaged.
    """

    def __init__(self, root: Path | None, cache: Path, year: Year, unlabelled: bool) -> None:
        choose("coco", "year", year, get_args(Year))
        choose("coco", "unlabelled", unlabelled, (True, False))
        self.card = _CARDS[year]
        self._cache, self._unlabelled = cache, unlabelled
        self._parts: dict[Split, str] = {"train": f"train{year}", "test": f"val{year}"}
        places = (".", "coco", f"coco{year}", "COCO")
        archives = ", ".join(archive.name for archive in self.card.archives)
        self._copy = Copy(root, f"COCO {year} ({archives})", places, _others(year))
        self._jsons: dict[Split, Path] = {}
        self._instances: dict[Split, Instances] = {}
        self.names = self._load("train").names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id.

        Raises:
            DataError: the json is missing, malformed or contradicts itself, the folder of images
                is missing, or the two splits have different categories or share an image.
        """
        train, found = self._load("train"), self._load(split)
        annotations = self._jsons[split]
        remedy = f"take both jsons in {annotations.parent} from one release"
        if found.names != train.names:
            raise DataError(f"{annotations} and that of train list different categories; {remedy}")
        keys = found.ids.astype(str).tolist()
        if split == "test":
            refuse_shared(train.ids.astype(str).tolist(), keys, remedy)
        rows = np.flatnonzero(found.targets.any(axis=1) | self._unlabelled).tolist()
        if not rows:
            raise DataError(
                f"{annotations}: none of its {len(keys)} images has an annotation; unpack COCO's "
                "annotations again, or keep such images with the option unlabelled=true"
            )
        part, home = self._parts[split], self._copy.home(self._jsons["train"], "annotations")
        folders = [home / part, home / "images" / part, home / "images"]
        there = any(map(Path.is_dir, folders))
        remedy = "" if there else f"unpack {part}.zip in {home}"
        files = self._copy.pictures([found.files[i] for i in rows], folders, remedy, _number)
        return Index(files, [keys[i] for i in rows], found.targets[rows])

    def official_split(self, split: Split) -> str:
        """The card's name of a split, with or without its unlabelled images."""
        return f"{split} with unlabelled" if self._unlabelled else split

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Count the instances of each label in these images of train, a crowd as one: [N, C]."""
        instances = self._load("train")
        rows = np.searchsorted(instances.ids, np.array(keys, dtype=np.int64))
        return instances.objects[rows]

    def _load(self, split: Split) -> Instances:
        if split not in self._instances:
            name, near = f"instances_{self._parts[split]}.json", self._jsons.get("train")
            file = self._copy.need(f"annotations/{name}", name, near=near)
            self._jsons[split], self._instances[split] = file, read_cached(file, self._cache)
        return self._instances[split]


def _number(name: str) -> str:
    """An image's id, twelve digits, whatever the release puts before it; masks are .png."""
    digits, _, ending = name.lower().rpartition(".")
    return digits[-12:] if digits[-12:].isdigit() and ending in ("jpg", "jpeg") else name.lower()


def _others(year: Year) -> dict[str, str]:
    """Name of another file on COCO that people have -> what it is."""
    other = 2017 if year == 2014 else 2014
    needs = f"the labels are those of instances_train{year}.json and instances_val{year}.json"
    return {
        "dataset_coco*.json": f"Karpathy's split for captions, without labels; {needs}",
        "captions_*.json": f"captions, not labels; {needs}",
        "person_keypoints_*.json": f"persons alone; {needs}",
        "train_anno.json": f"a list that ML-GCN's code makes, without the instances; {needs}",
        f"instances_*minival{year}.json": f"parts of val{year}; {needs}",
        f"instances_train{other}.json": f"the other release, coco{other}",
    }


class COCO2014(CocoYear):
    """COCO 2014, as in the older papers; train is ``train2014``, test is ``val2014``.

    Args:
        root, cache: see ``CocoYear``.
        unlabelled: keep images that no instance is annotated in. SSGRL and Query2Label keep them;
            ML-GCN, MSRN, ASL and most others do not.
    """

    card = _CARDS[2014]

    def __init__(self, root: Path | None, cache: Path, unlabelled: bool = False) -> None:
        super().__init__(root, cache, 2014, unlabelled)


class COCO2017(CocoYear):
    """COCO 2017; train is ``train2017``, test is ``val2017``. Runs are recorded as ``coco``.

    Args:
        root, cache, unlabelled: see ``COCO2014``.
    """

    card = _CARDS[2017]

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

    card = _CARDS[2017]

    def __init__(
        self, root: Path | None, cache: Path, year: Year = 2017, unlabelled: bool = False
    ) -> None:
        super().__init__(root, cache, year, unlabelled)

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
