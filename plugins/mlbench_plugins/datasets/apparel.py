"""Apparel: photographs of clothes in folders ``<colour>_<garment>``, two labels an image."""

from __future__ import annotations

import io
import logging
import pickle
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mlbench.files import is_picture
from mlbench.text import count, shorten
from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.duplicates import drawn, first_copies, together
from mlbench_plugins.datasets.photographs import (
    choose,
    list_folder,
    read_bytes,
    read_card,
    read_object,
)

ApparelSplit = Literal["fixed", "msrn"]

COLOURS = ("black", "blue", "brown", "green", "red", "white")
GARMENTS = ("dress", "pants", "shirt", "shoes", "shorts")
ELEVEN = (*COLOURS, *GARMENTS)
_MORE = ("pink", "silver", "yellow"), ("hoodie", "jeans", "skirt", "suit")
"""Colours and garments that the older set of 7 folders and the larger one of 37 add."""
_FOLDERS = tuple(
    f"{colour}_{garment}" for garment in (*GARMENTS, *_MORE[1]) for colour in (*COLOURS, *_MORE[0])
)
LABELS_FILE = "apparel_kaggle_labels.json"
_PICKLE = "image_label.pkl"

_WHAT = "Apparel (the folders <colour>_<garment> of Kaggle's trolukovich/apparel-images-dataset)"
_OTHERS = {_PICKLE: "MSRN's label file of images in one folder; add --dataset-option split=msrn"}
_LOG = logging.getLogger(__name__)


class Apparel(Dataset):
    """An image's labels are the two words of its folder; the others are absent.

    The labels are the eleven of the Kaggle set of 24 folders, six colours and then five garments,
    each in alphabetical order, whichever folders are there: one without a positive is left out of
    mAP. The older set with folders of jeans, and the larger one of 37 folders, have the colours and
    garments found in them, in the same order. Keys are ``<folder>/<file>``. A picture in two
    folders, of equal bytes, is one sample with the labels of both, under its smallest key.

    ``split="fixed"`` is our own: images of equal bytes form a group, and a group is trained on if
    the first 32 bits of the SHA-256 of its smallest key, read as a fraction, are below one half.
    It depends only on the keys and on which files are equal: adding or removing an image moves no
    other, and no picture is on both sides. ``split="msrn"`` is MSRN's: the images in the order of
    its label file are shuffled by Python's ``random.seed(10)``, and the first half is trained on.

    Args:
        root: the folder that has, at any depth, the folders ``<colour>_<garment>``, or for ``msrn``
            all images in one.
        cache: where digests of files are kept, so that they are read once.
        split: ``fixed`` or ``msrn``.
        labels_file: for ``msrn``, a json of file name -> [colour, garment] in MSRN's order, or
            MSRN's own ``image_label.pkl``; by default one of these names under ``root``.
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
        copy = Copy(root, _WHAT, places, _OTHERS)
        some = copy.find(*_FOLDERS)
        self.cache = cache
        self.split: ApparelSplit = split
        self._labels: dict[str, set[str]]
        if split == "msrn":
            file = _labels_file(copy, labels_file)
            folder = some.parent if some else file.parent
            self._labels, self._parts = _msrn(file)
            keys = list(self._labels)
            files = copy.pictures(keys, [folder, folder / "apparel"])
            self._files = dict(zip(keys, files, strict=True))
        elif some is None:
            raise copy.lacks(f"{_FOLDERS[0]} or the like")
        else:
            self._labels, self._parts = _fixed(some.parent, cache)
            self._files = {key: some.parent / key for key in self._labels}
            _tell_edition(self._labels, sum(self.card.splits[p].images for p in self._parts))
        self.names = _names(set().union(*self._labels.values()))

    @staticmethod
    def recorded_as(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Record the label file by its full path."""
        if (file := options.get("labels_file")) is None:
            return name, dict(options)
        return name, {**options, "labels_file": str(Path(file).expanduser().resolve())}

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by key."""
        keys = sorted(self._parts[split])
        rows = [[name in self._labels[key] for name in self.names] for key in keys]
        targets_NC = np.array(rows, np.int8).reshape(-1, len(self.names))
        return Index([self._files[key] for key in keys], keys, targets_NC)

    def official_split(self, split: Split) -> str:
        """The card's name of a split of this kind."""
        return split if self.split == "fixed" else f"MSRN's {split}"

    def train_groups(self) -> Sequence[str]:
        """Groups of images of equal bytes, not named by keys, whose hashes drew the train split."""
        keys = sorted(self._parts["train"])
        copies = first_copies([self._files[key] for key in keys], self.cache)
        return [f"copies of {name}" for name in together(keys, copies)]


Parts = dict[Split, list[str]]


def _fixed(folder: Path, cache: Path) -> tuple[dict[str, set[str]], Parts]:
    """The labels of each key, and the keys of both splits."""
    keys = sorted(_listed(folder))
    copies = first_copies([folder / key for key in keys], cache)
    homes = defaultdict(set)
    for key, first in zip(keys, copies, strict=True):
        homes[first].add(key.partition("/")[0])
    contrary = {first for first, names in homes.items() if len(names) > 1}
    if contrary:
        shown = [f"{keys[first]}, also in {shorten(sorted(homes[first]))}" for first in contrary]
        _LOG.warning(
            "apparel: %s in several folders, each one sample with the labels of all: %s",
            count(len(contrary), "picture"),
            shorten(sorted(shown), 3),
        )
    labels = {
        key: set("_".join(homes[first]).split("_"))
        for i, (key, first) in enumerate(zip(keys, copies, strict=True))
        if first not in contrary or first == i
    }
    train = dict(zip(keys, drawn(together(keys, copies), 0.5), strict=True))
    return labels, {
        "train": [key for key in labels if train[key]],
        "test": [key for key in labels if not train[key]],
    }


def _listed(folder: Path) -> list[str]:
    """The keys of all images; hidden files and folders are left out."""
    parts = [part for part in list_folder(folder) if part.is_dir() and part.name != "__MACOSX"]
    _check_folders((str(part), part.name) for part in parts)
    keys = [f"{p.name}/{f.name}" for p in parts for f in list_folder(p) if is_picture(f)]
    if not keys:
        raise DataError(f"no image is in the folders of {folder}; unpack {_WHAT} there again")
    return keys


def _check_folders(folders: Iterable[tuple[str, str]]) -> None:
    """Refuse names that are no ``<colour>_<garment>``, from (place, name)."""
    foreign = [f"{where}: {name!r}" for where, name in folders if name not in _FOLDERS]
    if foreign:
        raise DataError(
            f"{shorten(foreign, 20)}: no <colour>_<garment> of {', '.join(COLOURS)} and "
            f"{', '.join(GARMENTS)} (or of other sets: {', '.join(_MORE[0] + _MORE[1])}); move "
            "this out of the set, or train on your own pictures with --datasets manifest:FOLDER"
        )


def _tell_edition(labels: Mapping[str, object], known: int) -> None:
    """Warn of today's larger set, and of a copy with a few images more or fewer."""
    folders = {key.partition("/")[0] for key in labels}
    more = {word for name in folders for word in name.split("_")} - {*ELEVEN, "jeans"}
    what = f"apparel: {count(len(labels), 'image')} in {count(len(folders), 'folder')}"
    if more:
        _LOG.warning(
            "%s, with %s: not the 24 folders of MSRN and of published scores, but the larger set "
            "that kaiska/apparel-dataset is today (37 folders, 16,170 images); all words count",
            *(what, ", ".join(sorted(more))),
        )
    elif len(folders) == 24 and 0 < abs(over := len(labels) - known) < 100:
        known_set = f"{known:,} of MSRN's list, of which the known edition is made"
        _LOG.warning("%s, %+d beside the %s", what, over, known_set)


def _names(words: set[str]) -> tuple[str, ...]:
    """The eleven labels, or those found where there are others."""
    if words <= set(ELEVEN):
        return ELEVEN
    garments = words.intersection((*GARMENTS, *_MORE[1]))
    return (*sorted(words - garments), *sorted(garments))


# ------------------------------------------------------------------------------------- MSRN's split
def _labels_file(copy: Copy, asked: str | None) -> Path:
    if asked is not None:
        return Path(asked)
    if (found := copy.find(LABELS_FILE, _PICKLE)) is None:
        raise DataError(
            f"split='msrn' follows the order of MSRN's label file: {copy.root / LABELS_FILE} or "
            f"{_PICKLE} is missing; put it there, name another file by the option labels_file, or "
            "take split='fixed'"
        )
    return found


def _msrn(file: Path) -> tuple[dict[str, set[str]], Parts]:
    """The labels of each key, and the keys of both splits."""
    labels = _labels_in(file)
    keys = list(labels)
    random.Random(10).shuffle(keys)  # what random.seed(10); random.shuffle(keys) does
    half = len(keys) // 2
    return labels, {"train": keys[:half], "test": keys[half:]}


def _labels_in(file: Path) -> dict[str, set[str]]:
    """The labels of each key, in the order of the file."""
    remedy = "copy it again, or name another file by the option labels_file"
    if file.suffix == ".pkl":
        content = {name: _words(row, f"{file}, {name!r}") for name, row in _unpickled(file).items()}
    else:
        content = read_object(file, remedy, "file name -> [colour, garment]")
    folders = {
        name: "_".join(map(str, labels)) if isinstance(labels, list) else str(labels)
        for name, labels in content.items()
    }
    _check_folders((f"{file}, {name!r}", folder) for name, folder in folders.items())
    return {f"{folder}/{name}": set(folder.split("_")) for name, folder in folders.items()}


def _words(row: object, where: str) -> list[str]:
    """The labels of MSRN's row of eleven numbers, where 0 is a present label and -1 an absent."""
    if not isinstance(row, list) or len(row) != len(ELEVEN) or not set(row) <= {0, -1}:
        raise DataError(f"{where} has {row!r:.100}, not eleven labels of 0 (present) or -1")
    return [word for word, value in zip(ELEVEN, row, strict=True) if value == 0]


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values alone, since a pickle that names a function could call it."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(file: Path) -> dict[str, Any]:
    data = read_bytes(file, "name MSRN's label file by the option labels_file")
    try:
        content = _PlainUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{file} is no pickle of plain values: {error}; copy it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is no pickle of file name -> labels; copy it again")
    return content
