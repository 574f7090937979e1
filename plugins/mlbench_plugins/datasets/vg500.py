"""VG500: 500 objects of Visual Genome (Krishna et al., IJCV 2017), as SSGRL (ICCV 2019) has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.photographs import (
    read_card,
    read_keys,
    read_lines,
    read_object,
    refuse_shared,
)

LABELS = 500
_PLACES = (".", "vg500", "VG500", "VG", "vg")
_FOLDERS = ("VG_100K", "VG_100K_2", "images", ".")
_LABELS = "vg_category_500_labels_index.json"
_OTHERS = {
    "vg_category_200_*.json": "of VG-200, whose labels are others; take "
    f"{_LABELS} of the same folder"
}
_AGAIN = "take it from the folder data/VG of SSGRL's repository"


class VG500(Dataset):
    """Train is ``train_list_500.txt``, test is ``test_list_500.txt``; keys are file names.

    ``vg_category_500_labels_index.json`` has the labels: file name -> indices below 500. The names
    of the labels are not in these files, so they are called ``vg000`` to ``vg499``, which have no
    word vectors, unless ``names_file`` names them.

    Args:
        root: the folder with the lists and, at any depth, the images.
        cache: not used.
        names_file: a file beside the lists with the 500 names, one per line.
    """

    card = read_card("vg500")

    def __init__(self, root: Path | None, cache: Path, names_file: str = "") -> None:
        what = (
            f"VG500 (train_list_500.txt, test_list_500.txt and {_LABELS}, of the folder data/VG of "
            "SSGRL's repository)"
        )
        self._copy = Copy(root, what, _PLACES, _OTHERS)
        self._train = self._copy.need("train_list_500.txt")
        self.names = _names(self._train.parent, names_file)
        self._splits: dict[Split, Index] = {}

    def index(self, split: Split) -> Index:
        """The samples in the order of the lists.

        Raises:
            DataError: a file is missing or malformed, a listed image has no labels, an image
                is listed twice or in both lists, or none of the images is there.
        """
        if not self._splits:
            file = self._copy.need(_LABELS, near=self._train)
            test = self._copy.need("test_list_500.txt", near=self._train)
            labels = read_object(file, _AGAIN, "file name -> list of indices")
            lists: dict[Split, list[str]] = {
                "train": read_keys(self._train, _AGAIN),
                "test": read_keys(test, _AGAIN),
            }
            refuse_shared(lists["train"], lists["test"], "take both lists from one source")
            listed = [*lists["train"], *lists["test"]]
            folders = [self._train.parent / place for place in _FOLDERS]
            remedy = f"unpack images.zip and images2.zip of Visual Genome in {folders[-1]}"
            files = dict(zip(listed, self._copy.pictures(listed, folders, remedy), strict=True))
            self._splits = {
                part: Index([files[key] for key in keys], keys, _targets(keys, file, labels))
                for part, keys in lists.items()
            }
        return self._splits[split]


def _names(folder: Path, file: str) -> tuple[str, ...]:
    if not file:
        return tuple(f"vg{i:03d}" for i in range(LABELS))
    names = [line.strip() for line in read_lines(folder / file, "give 500 names, one per line")]
    if len(names) != LABELS or len(set(names)) != LABELS or "" in names:
        raise DataError(
            f"{folder / file} has {len(set(names) - {''})} different names in {len(names)} "
            "lines; give 500 names, one per line"
        )
    return tuple(names)


def _targets(keys: list[str], file: Path, indices: dict[str, Any]) -> NDArray[np.int8]:
    """int8 [N, 500] in {1, 0}, from the labels in a file: key -> indices."""
    targets_NC = np.zeros((len(keys), LABELS), np.int8)
    for row, key in enumerate(keys):
        found = indices.get(key)
        if found is None:
            raise DataError(f"{file} has no labels of the listed image {key!r}; {_AGAIN}")
        if not isinstance(found, list) or not all(
            type(index) is int and 0 <= index < LABELS for index in found
        ):
            raise DataError(f"{file}: {key!r} has {found!r:.200}, not a list of indices 0 to 499")
        targets_NC[row, found] = 1
    return targets_NC
