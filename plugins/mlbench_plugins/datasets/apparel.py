"""Apparel: photographs of clothes in folders ``<colour>_<garment>``, two labels an image."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.duplicates import drawn, first_copies, together
from mlbench_plugins.datasets.photographs import (
    choose,
    is_picture,
    list_folder,
    locate,
    read_card,
    read_object,
)

ApparelSplit = Literal["fixed", "msrn"]

COLOURS = ("black", "blue", "brown", "green", "red", "white")
GARMENTS = ("dress", "pants", "shirt", "shoes", "shorts")
JEANS = "jeans"
"""A garment of the older set of seven folders, which the Kaggle set does not have."""
_FOLDERS = tuple(f"{colour}_{garment}" for garment in (*GARMENTS, JEANS) for colour in COLOURS)
LABELS_FILE = "apparel_kaggle_labels.json"

_WHAT = "Apparel (the folders <colour>_<garment> of Kaggle's kaiska/apparel-dataset)"


class Apparel(Dataset):
    """An image's labels are the two words of its folder; the others are absent.

    The labels are the eleven of the Kaggle set, six colours and then five garments, each in
    alphabetical order, whichever folders are there: one without a positive is left out of mAP.
    The older set with folders of jeans has the colours and garments found in it, in the same
    order. Keys are ``<folder>/<file>``.

    ``split="fixed"`` is our own: images of equal bytes form a group, and a group is trained on if
    the first 32 bits of the SHA-256 of its smallest key, read as a fraction, are below one half.
    It depends on the keys and on which files are equal alone, so that an image more or less moves
    no other, and never has a picture on both sides. ``split="msrn"`` is MSRN's: the images in the
    order of its label file are shuffled by Python's ``random.seed(10)``, the first half is
    trained on.

    Args:
        root: the folder with the folders ``<colour>_<garment>``, or one with such an ``apparel``.
        cache: where digests of files are kept, so that they are read once.
        split: ``fixed`` or ``msrn``.
        labels_file: for ``msrn``, a json of file name -> [colour, garment] in MSRN's order; by
            default ``apparel_kaggle_labels.json`` beside the folders or in ``root``.
    """

    card = read_card("apparel")

    def __init__(
        self,
        root: Path | None,
        cache: Path,
        split: ApparelSplit = "fixed",
        labels_file: str | None = None,
    ) -> None:
        choose("apparel", "split", split, get_args(ApparelSplit))
        places = (".", "apparel", "apparel-dataset", "apparel-mini")
        self.folder = locate(root, places, _FOLDERS, _WHAT)
        self.cache = cache
        self.split: ApparelSplit = split
        if split == "msrn":
            named = _labels_file(labels_file, self.folder, root or self.folder)
            self._parts = _msrn(named)
        else:
            self._parts = _fixed(self.folder, cache)
        self.names = _names(
            {key.partition("/")[0] for keys in self._parts.values() for key in keys}
        )

    @staticmethod
    def recorded_as(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The label file by its full path, however it was written."""
        if (file := options.get("labels_file")) is None:
            return name, dict(options)
        return name, {**options, "labels_file": str(Path(file).expanduser().resolve())}

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by key."""
        keys = sorted(self._parts[split])
        words = np.array([key.partition("/")[0].split("_") for key in keys]).reshape(-1, 2)
        targets_NC = (words[:, :, None] == np.array(self.names)).any(axis=1).astype(np.int8)
        return Index([self.folder / key for key in keys], keys, targets_NC)

    def official_split(self, split: Split) -> str:
        """The card's name of a split of this kind."""
        return split if self.split == "fixed" else f"MSRN's {split}"

    def train_groups(self) -> Sequence[str]:
        """Images of equal bytes."""
        keys = sorted(self._parts["train"])
        return together(keys, first_copies([self.folder / key for key in keys], self.cache))


def _fixed(folder: Path, cache: Path) -> dict[Split, list[str]]:
    keys = sorted(_listed(folder))
    copies = first_copies([folder / key for key in keys], cache)
    train = drawn(together(keys, copies), 0.5)
    return {
        "train": [key for key, here in zip(keys, train, strict=True) if here],
        "test": [key for key, here in zip(keys, train, strict=True) if not here],
    }


def _listed(folder: Path) -> list[str]:
    """The keys of all images; hidden files and folders are left out."""
    keys: list[str] = []
    for part in filter(Path.is_dir, list_folder(folder)):
        _check_folder(part.name, str(part))
        keys += [f"{part.name}/{file.name}" for file in list_folder(part) if is_picture(file)]
    if not keys:
        raise DataError(f"no image is in the folders of {folder}; unpack {_WHAT} there again")
    return keys


def _check_folder(name: str, where: str) -> None:
    if name not in _FOLDERS:
        raise DataError(
            f"{where}: {name!r} is no <colour>_<garment> of {', '.join(COLOURS)} and "
            f"{', '.join(GARMENTS)} (or {JEANS}); move it out of the set, or train on your own "
            "pictures with --datasets manifest:FOLDER"
        )


def _names(folders: set[str]) -> tuple[str, ...]:
    """The eleven labels, or those found where there are jeans."""
    colours = {name.partition("_")[0] for name in folders}
    garments = {name.partition("_")[2] for name in folders}
    if JEANS not in garments:
        return (*COLOURS, *GARMENTS)
    return (*sorted(colours), *sorted(garments))


# ------------------------------------------------------------------------------------- MSRN's split
def _labels_file(asked: str | None, *folders: Path) -> Path:
    if asked is not None:
        return Path(asked)
    for folder in folders:
        if (folder / LABELS_FILE).exists():
            return folder / LABELS_FILE
    looked = " or ".join(dict.fromkeys(str(folder / LABELS_FILE) for folder in folders))
    raise DataError(
        f"split='msrn' follows the order of MSRN's label file: {looked} is missing; put it there, "
        "name another file by the option labels_file, or take split='fixed'"
    )


def _msrn(file: Path) -> dict[Split, list[str]]:
    keys = _keys_in(file)
    random.Random(10).shuffle(keys)  # what random.seed(10); random.shuffle(keys) does
    half = len(keys) // 2
    return {"train": keys[:half], "test": keys[half:]}


def _keys_in(file: Path) -> list[str]:
    """Keys in the order of the file."""
    remedy = "copy it again, or name another file by the option labels_file"
    content = read_object(file, remedy, "file name -> [colour, garment]")
    keys = []
    for name, labels in content.items():
        folder = "_".join(map(str, labels)) if isinstance(labels, list) else str(labels)
        _check_folder(folder, f"{file}, {name!r}")
        keys.append(f"{folder}/{name}")
    return keys
