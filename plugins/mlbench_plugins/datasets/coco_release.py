"""One year's release of COCO: two jsons of instances, and the images that they list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Index, Split
from mlbench_plugins.datasets.instances import Instances, remembered
from mlbench_plugins.datasets.photographs import is_folder, locate, refuse_shared

Year = Literal[2014, 2017]

_PART: dict[Split, str] = {"train": "train", "test": "val"}


class Release:
    """The two splits of one year.

    Args:
        root: the folder that ``--data`` names.
        cache: where the labels of a json are kept.
        year: of the release.
        unlabelled: keep images that no instance is annotated in.

    Raises:
        DataError: the release is not there, or the json of train is damaged.
    """

    def __init__(self, root: Path | None, cache: Path, year: Year, unlabelled: bool) -> None:
        if not isinstance(unlabelled, bool):
            raise DataError(f"coco has no unlabelled={unlabelled!r}; choose from true, false")
        self.cache = cache
        self.year = year
        self.unlabelled = unlabelled
        self.folder = locate(
            root,
            (".", "coco", f"coco{year}", "COCO"),
            self._json("train"),
            f"COCO {year} (annotations_trainval{year}.zip, train{year}.zip and val{year}.zip)",
        )
        self._instances: dict[Split, Instances] = {}
        self.names = self._load("train").names

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by image id.

        Raises:
            DataError: the json is missing, is no instances json or contradicts itself, the folder
                of images is missing, or the two splits have different categories or an image in
                common.
        """
        instances = self._load(split)
        if instances.names != self.names:
            raise DataError(
                f"{self.folder / self._json(split)} and {self._json('train')} list different "
                "categories; take both from one release"
            )
        images = self.folder / f"{_PART[split]}{self.year}"
        if not is_folder(images):
            raise DataError(f"the folder {images} is missing; unpack {images.name}.zip there")
        keys = instances.ids.astype(str).tolist()
        if split == "test":
            remedy = f"take both jsons in {self.folder / 'annotations'} from one release"
            refuse_shared(self._load("train").ids.astype(str).tolist(), keys, remedy)
        targets_NC = instances.targets
        rows = np.flatnonzero(targets_NC.any(axis=1) | self.unlabelled)
        if not len(rows):
            raise DataError(
                f"{self.folder / self._json(split)}: none of its {len(keys)} images has an "
                "annotation; unpack COCO's annotations again, or keep such images by the option "
                "unlabelled=true"
            )
        return Index(
            [images / instances.files[i] for i in rows.tolist()],
            [keys[i] for i in rows.tolist()],
            targets_NC[rows],
        )

    def official_split(self, split: Split, usual: Year) -> str:
        """What a card calls a split, if its own are the annotated images of the year ``usual``."""
        name = f"{_PART[split]}{self.year}"
        if self.unlabelled:
            return f"{name} with unlabelled"
        return split if self.year == usual else name

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """How many instances of each label these images of train have: [N, C]."""
        instances = self._load("train")
        rows = np.searchsorted(instances.ids, np.array(keys, dtype=np.int64))
        return instances.objects[rows]

    def _load(self, split: Split) -> Instances:
        if split not in self._instances:
            self._instances[split] = remembered(self.folder / self._json(split), self.cache)
        return self._instances[split]

    def _json(self, split: Split) -> str:
        return f"annotations/instances_{_PART[split]}{self.year}.json"
