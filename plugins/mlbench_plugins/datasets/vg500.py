"""VG500: 500 objects of Visual Genome (Krishna et al., IJCV 2017), as SSGRL (ICCV 2019) has it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.photographs import (
    exists,
    locate,
    read_card,
    read_lines,
    read_text,
    refuse_shared,
    unreadable,
)

LABELS = 500
_PLACES = (".", "vg500", "VG500", "VG", "vg")
_FOLDERS = ("VG_100K", "VG_100K_2", "images", ".")
_AGAIN = "take it from the folder data/VG of SSGRL's repository"


class VG500(Dataset):
    """Train is ``train_list_500.txt``, test is ``test_list_500.txt``; keys are file names.

    The labels are ``vg_category_500_labels_index.json``: file name -> indices below 500. Their
    names are not in these files, so they are called ``vg000`` to ``vg499``, for which no word
    vectors are to be had, unless a file names them.

    Args:
        root: the folder with the lists and the images (``VG_100K``, ``VG_100K_2``, ``images``, or
            beside the lists), or a folder with such a ``vg500`` or ``VG``.
        cache: not used.
        names_file: a file beside the lists with the 500 names, one per line.
    """

    card = read_card("vg500")

    def __init__(self, root: Path | None, cache: Path, names_file: str = "") -> None:
        what = "VG500 (train_list_500.txt, test_list_500.txt and the label json of SSGRL)"
        self.folder = locate(root, _PLACES, "train_list_500.txt", what)
        self.names = _names(self.folder, names_file)
        self._splits: dict[Split, Index] = {}

    def index(self, split: Split) -> Index:
        """The samples in the order of the lists.

        Raises:
            DataError: a file is missing or malformed, a listed image has no labels, an image
                is listed twice or in both lists, or none of the images is there.
        """
        if not self._splits:
            labels = _read_json(self.folder / "vg_category_500_labels_index.json")
            lists = {part: _read_list(self.folder / f"{part}_list_500.txt") for part in _SPLITS}
            refuse_shared(lists["train"], lists["test"], "take both lists from one source")
            home = _homes(self.folder, [*lists["train"], *lists["test"]])
            self._splits = {
                part: Index([home[key] / key for key in keys], keys, _targets(keys, labels))
                for part, keys in lists.items()
            }
        return self._splits[split]


_SPLITS: tuple[Split, ...] = ("train", "test")


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


def _read_list(file: Path) -> list[str]:
    keys = [line.strip() for line in read_lines(file, _AGAIN)]
    for number, key in enumerate(keys, start=1):
        if not key:
            raise DataError(f"{file} line {number} is empty; {_AGAIN}")
    if len(set(keys)) < len(keys):
        twice = next(key for key, times in Counter(keys).items() if times > 1)
        raise DataError(f"{file}: image {twice} is listed twice; {_AGAIN}")
    return keys


def _read_json(file: Path) -> tuple[Path, dict[str, Any]]:
    try:
        content = json.loads(read_text(file, _AGAIN))
    except ValueError as error:
        raise DataError(f"{file} is no whole json: {error}; {_AGAIN}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no object of file name -> list of indices; {_AGAIN}")
    return file, content


def _targets(keys: list[str], labels: tuple[Path, dict[str, Any]]) -> NDArray[np.int8]:
    """int8 [N, 500] in {1, 0}."""
    file, indices = labels
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


def _homes(folder: Path, keys: list[str]) -> dict[str, Path]:
    """Key -> the first folder with that file; for a missing image, the first folder there is."""
    folders = [folder / place for place in _FOLDERS if exists(folder / place)]
    home: dict[str, Path] = {}
    try:
        for place in folders:
            for file in place.iterdir():
                home.setdefault(file.name, place)
    except OSError as error:
        raise unreadable(Path(error.filename), error, "listed") from error
    if home.keys().isdisjoint(keys):
        looked = ", ".join(map(str, folders))
        raise DataError(
            f"none of the {len(keys):,} listed images is in {looked}; unpack images.zip and "
            f"images2.zip of Visual Genome in {folder}"
        )
    return {key: home.get(key, folders[0]) for key in keys}
