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
from mlbench_plugins.datasets.instances import Instances, read_cached
from mlbench_plugins.datasets.photographs import choose, locate, read_card, refuse_shared

Year = Literal[2014, 2017]

_CARDS: dict[Year, DatasetCard] = {
    2014: read_card("coco", "coco2014"),
    2017: read_card("coco", "coco2017"),
}


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
        self.card = _CARDS[year]
        self._cache, self._unlabelled = cache, unlabelled
        self._parts: dict[Split, str] = {"train": f"train{year}", "test": f"val{year}"}
        places = (".", "coco", f"coco{year}", "COCO")
        archives = ", ".join(archive.name for archive in self.card.archives)
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
        if not images.is_dir():
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
