"""NUS-WIDE (Chua et al., CIVR 2009), 81 concepts, by the protocols in circulation."""

from __future__ import annotations

import ast
import csv
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.text import count, shorten
from mlbench.types import DataError, Dataset, Index, Split
from mlbench_plugins.datasets.copies import Copy
from mlbench_plugins.datasets.nuswide_labels import (
    AGAIN,
    NAMES,
    SPLITS,
    Listed,
    Lists,
    load_array,
    with_labels,
)
from mlbench_plugins.datasets.photographs import (
    choose,
    read_card,
    read_keys,
    read_lines,
    refuse_shared,
    unique_keys,
)

Protocol = Literal["csv", "original", "single_positive", "hashing"]
Reader = Callable[[Copy, Lists], dict[Split, Listed]]

_TABLE = "nus_wid_data.csv"
_COLUMN = {name: c for c, name in enumerate(NAMES)}
_PLACES = (".", "nuswide", "NUS-WIDE", "nus-wide", "nus_wide")
_FLICKR = ("Flickr", "images", "image", ".")
_OWN = (
    "to train on it, write a CSV with the columns image, split and one for each label, and give "
    "--datasets manifest:FILE"
)
_OTHERS = {
    "*tags81.txt": "tags of users, which are not the ground truth; Groundtruth.zip is",
    "*onehot*.txt": f"of a subset for retrieval, with fewer classes than 81; {_OWN}",
}
_LOG = logging.getLogger(__name__)


class NUSWIDE(Dataset):
    """Train and test are those of one of four protocols, whose scores cannot be compared.

    ``csv`` is the table that was published with ASL (Ridnik et al., ICCV 2021), on which most later
    scores are: images without any label are left out, and the rest is split about 70 to 30.
    ``original`` are the official lists, images without labels included. ``single_positive`` are the
    images of the benchmark of Cole et al. (CVPR 2021), those that Flickr still had in 2020, images
    without labels included, with the official labels; hiding all but one positive of each training
    image is not part of it here. ``hashing`` are the lists ``train.txt`` and ``test.txt`` of code
    for retrieval (HashNet), ``path 0 1 ...`` with 81 labels in the official order.

    Keys are image paths as they are listed, with forward slashes (``actor/0001_2124494179.jpg``).
    An image may lie as listed, or in any folder under any name with its number at Flickr, so that
    each protocol can read the official images and those of the other protocols.

    Args:
        root: the folder that has, at any depth, the lists and the images.
        cache: not used.
        protocol: which images are trained on and scored.
    """

    names = NAMES
    card = read_card("nuswide")

    def __init__(self, root: Path | None, cache: Path, protocol: Protocol = "csv") -> None:
        choose("nuswide", "protocol", protocol, get_args(Protocol))
        self.protocol = protocol
        others = ", ".join(one for one in get_args(Protocol) if one != protocol)
        _, needs, self._read = _PROTOCOLS[protocol]
        what = f"NUS-WIDE by protocol={protocol} (others: {others}) needs {needs}"
        self._copy = Copy(root, what, _PLACES, _OTHERS)
        self._lists: dict[Split, Path] = {}
        for split in SPLITS:
            found = _find_list(self._copy, protocol, split, self._lists.get("train"))
            if found is None:
                raise self._copy.lacks(_PROTOCOLS[protocol][0][split][0], *self._fitting())
            self._lists[split] = found
        self._splits: dict[Split, Index] = {}

    def _fitting(self) -> list[str]:
        """Hints at protocols whose lists are here, for the error that a list is missing."""
        found = [
            f"{file} is of protocol={other}: add --dataset-option protocol={other}"
            for other in get_args(Protocol)
            if other != self.protocol and (file := _find_list(self._copy, other, "train"))
        ]
        lists = self._copy.all("train.txt") if "hashing" not in " ".join(found) else []
        return found + [
            f"{file} has {width} labels a line, a subset for retrieval, not the 81; {_OWN}"
            for file in lists
            if (width := _width(file)) > 1
        ]

    def index(self, split: Split) -> Index:
        """The samples in the order of the lists.

        Raises:
            DataError: a file is missing or malformed, lists and labels do not match, an image is
                in a list twice or in both, or none of the images is there.
        """
        if not self._splits:
            listed = self._read(self._copy, self._lists)
            (train, _), (test, _) = listed.values()
            refuse_shared(train, test, f"take the lists of {self.protocol} from one source")
            _tell_twins(train, test)
            keys, home = [*train, *test], self._copy.home(self._lists["train"], "imagelist")
            folders = [home / place for place in _FLICKR]
            remedy = "put the folder Flickr of the images there"
            files = self._copy.pictures(keys, folders, remedy, _flickr_number)
            paths = dict(zip(keys, files, strict=True))
            self._splits = {
                part: Index([paths[key] for key in keys], keys, targets)
                for part, (keys, targets) in listed.items()
            }
        return self._splits[split]

    def official_split(self, split: Split) -> str | None:
        """The card's name of a split of this protocol."""
        if self.protocol == "csv":
            return split
        start = f"{split} by {self.protocol}"
        return next((name for name in self.card.splits if name.startswith(start)), None)


def _find_list(
    copy: Copy, protocol: Protocol, split: Split, near: Path | None = None
) -> Path | None:
    names = _PROTOCOLS[protocol][0][split]
    if protocol == "hashing":
        return copy.find(*names, near=near, fits=lambda file: _width(file) == len(NAMES))
    return copy.find(*names, near=near)


def _width(file: Path) -> int:
    """The number of labels in the first line of a list ``path 0 1 ...``; 0 for other files."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        _, *labels = lines.readline().split() or [""]
    return len(labels) if set(labels) <= {"0", "1"} else 0


def _flickr_number(name: str) -> str:
    """Flickr's number of the photo in any of its names; numbers of up to six digits count rows.

    Its names are like ``0001_2124494179.jpg``, ``977_2124494179_b039ddeb9b_m.jpg`` and Flickr's own
    ``2124494179_b039ddeb9b_m.jpg``.
    """
    numbers = [part for part in name.partition(".")[0].split("_")[:2] if part.isdigit()]
    return next((n for n in numbers if len(n) > 6), (numbers or [name.lower()])[-1])


def _tell_twins(train: Sequence[str], test: Sequence[str]) -> None:
    """Warn of photos that are in both splits under several paths."""
    numbers = {_flickr_number(key.rpartition("/")[2]): key for key in train}
    twins = [
        f"{numbers[number]} is {key}"
        for key in test
        if (number := _flickr_number(key.rpartition("/")[2])) in numbers and number.isdigit()
    ]
    if twins:
        _LOG.warning(
            "nuswide: %s of test are in train under another path, as these lists have it: %s",
            count(len(twins), "photo"),
            shorten(twins, 3),
        )


# ----------------------------------------------------------------------------------- the protocols
def _official(copy: Copy, lists: Lists) -> dict[Split, Listed]:
    """Read lists of official images, as text or as the benchmark's .npy, with official labels."""
    keys = {}
    for split, file in lists.items():
        if file.suffix == ".npy":
            places = ((f"{file} entry {i}", str(path)) for i, path in enumerate(load_array(file)))
            keys[split] = unique_keys(places, "copy the benchmark's file again")
        else:
            keys[split] = read_keys(file, f"write one image path a line, or {AGAIN}")
    return with_labels(copy, lists, keys)


def _hashing(copy: Copy, lists: Lists) -> dict[Split, Listed]:
    """Read lines ``path 0 1 ...``; a key begins with the last folder that all images share."""
    found: dict[Split, Listed] = {}
    for split, file in lists.items():
        remedy = "copy the list again"
        rows = [line.split() for line in read_lines(file, remedy)]
        for number, (_, *labels) in enumerate(rows, start=1):
            if len(labels) != len(NAMES) or not set(labels) <= {"0", "1"}:
                raise DataError(f"{file} line {number}: not a path and 81 times 0 or 1; {remedy}")
        places = ((f"{file} line {i}", row[0]) for i, row in enumerate(rows, start=1))
        keys = unique_keys(places, remedy)
        above = len(PurePosixPath(os.path.commonpath(keys)).parts) - 1
        keys = ["/".join(PurePosixPath(key).parts[max(above, 0) :]) for key in keys]
        found[split] = keys, np.array([row[1:] for row in rows]).astype(np.int8)
    return found


def _table(copy: Copy, lists: Lists) -> dict[Split, Listed]:
    """Read both splits of ``nus_wid_data.csv``, by the position of its columns.

    The columns are an image path, a list of concepts as Python writes it, and ``train`` or ``val``
    (in some copies ``test``). A first row without such a list names the columns.
    """
    file, again = lists["train"], "download it again"
    cells = enumerate(csv.reader(read_lines(file, again)), start=1)
    rows = [(f"{file} line {number}", *row) for number, row in cells if row]
    if odd := next((row for row in rows if len(row) != 4), None):
        raise DataError(f"{odd[0]} has {len(odd) - 1} columns, not path, labels and split; {again}")
    if not rows[0][2].lstrip().startswith("["):
        del rows[0]
    parts = {"train": "train", "test": "val" if any(row[3] == "val" for row in rows) else "test"}
    if odd := next((row for row in rows if row[3] not in parts.values()), None):
        raise DataError(f"{odd[0]}: {odd[3]!r} is neither 'train' nor {parts['test']!r}")
    places: dict[str, str] = {}
    for where, _, labels, _ in rows:
        places.setdefault(labels, where)
    known = {labels: _read_labels(labels, where) for labels, where in places.items()}
    found: dict[Split, Listed] = {}
    for split in SPLITS:
        some = [row for row in rows if row[3] == parts[split]]
        if not some:
            raise DataError(f"{file} has no line of the split {parts[split]!r}")
        keys = unique_keys(((where, path) for where, path, _, _ in some), again)
        found[split] = keys, np.stack([known[row[2]] for row in some])
    return found


def _read_labels(text: str, where: str) -> NDArray[np.int8]:
    """int8 [C] from the text of a Python list of concepts."""
    try:
        labels = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        labels = None
    if not isinstance(labels, list):
        raise DataError(f"{where}: {text!r:.200} is no list such as \"['clouds', 'sky']\"")
    target_C = np.zeros(len(NAMES), np.int8)
    for label in labels:
        if label not in _COLUMN:
            raise DataError(f"{where}: {label!r} is none of the 81 concepts")
        target_C[_COLUMN[label]] = 1
    return target_C


_PROTOCOLS: dict[Protocol, tuple[dict[Split, tuple[str, ...]], str, Reader]] = {
    "csv": (
        {"train": (_TABLE,), "test": (_TABLE,)},
        f"{_TABLE}, which is published with ASL's model zoo",
        _table,
    ),
    "original": (
        {
            "train": ("ImageList/TrainImagelist.txt", "TrainImagelist.txt"),
            "test": ("ImageList/TestImagelist.txt", "TestImagelist.txt"),
        },
        "the official ImageList.zip and Groundtruth.zip",
        _official,
    ),
    "single_positive": (
        {
            "train": ("single_positive_train.txt", "formatted_train_images.npy"),
            "test": ("single_positive_test.txt", "formatted_val_images.npy"),
        },
        "the benchmark's own lists (formatted_train_images.npy and formatted_val_images.npy, or as "
        "text, one image path a line, single_positive_train.txt and single_positive_test.txt), and "
        "ImageList/Imagelist.txt and Groundtruth/AllLabels of the official archives",
        _official,
    ),
    "hashing": (
        {"train": ("train.txt",), "test": ("test.txt",)},
        "train.txt and test.txt of code for retrieval, lines 'path 0 1 ...' with 81 labels",
        _hashing,
    ),
}
"""Protocol -> names of each split's list, all that it needs in words, and the reader."""
