"""NUS-WIDE (Chua et al., CIVR 2009), 81 concepts, by the protocols in circulation."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, Index, Split, Targets
from mlbench_plugins.datasets.photographs import (
    choose,
    locate,
    read_card,
    read_keys,
    read_lines,
    read_text,
    refuse_shared,
    unique_keys,
)

Protocol = Literal["csv", "original", "single_positive"]
Listed = tuple[list[str], Targets]
"""N image paths with forward slashes, and their labels int8 [N, C] in {1, 0}."""

NAMES = read_card("nuswide").orders["official"]
"""The concepts in the order of Concepts81.txt."""
_TABLE = "nus_wid_data.csv"
_LISTS: dict[Split, str] = {
    "train": "ImageList/TrainImagelist.txt",
    "test": "ImageList/TestImagelist.txt",
}
_SINGLE_POSITIVE: dict[Split, str] = {
    "train": "single_positive_train.txt",
    "test": "single_positive_test.txt",
}
_COLUMN = {name: c for c, name in enumerate(NAMES)}
_PLACES = (".", "nuswide", "NUS-WIDE", "nus-wide", "nus_wide")
_PART: dict[Split, tuple[str, str]] = {"train": ("Train", "train"), "test": ("Test", "val")}
"""Split -> what the official files and the table call it."""
_AGAIN = "unpack the official ImageList.zip, Groundtruth.zip and ConceptsList.zip again"


class NUSWIDE(Dataset):
    """Train and test are those of one of three protocols, whose scores cannot be compared.

    ``csv`` is the table that was published with ASL (Ridnik et al., ICCV 2021), on which most later
    scores are: images without any label are left out, and the rest is split about 70 to 30.
    ``original`` are the official lists, images without labels included. ``single_positive`` are the
    images of the benchmark of Cole et al. (CVPR 2021), those that Flickr still had in 2020, images
    without labels included, with the official labels; hiding all but one positive of each training
    image is not part of it here.

    Keys are image paths as they are listed, with forward slashes (``actor/0001_2124494179.jpg``).
    The images may lie as listed or all in one folder, in ``Flickr``, in ``images`` or beside the
    lists.

    Args:
        root: the folder with the lists and the images, or a folder with such a ``nuswide`` or
            ``NUS-WIDE``.
        cache: not used.
        protocol: which images are trained on and scored.
    """

    names = NAMES
    card = read_card("nuswide")

    def __init__(self, root: Path | None, cache: Path, protocol: Protocol = "csv") -> None:
        choose("nuswide", "protocol", protocol, get_args(Protocol))
        self.protocol = protocol
        sign, needs, self._read = _PROTOCOLS[protocol]
        others = " and ".join(one for one in get_args(Protocol) if one != protocol)
        what = f"NUS-WIDE by protocol={protocol} (others: {others}) needs {needs}"
        self.folder = locate(root, _PLACES, sign, what)
        self._splits: dict[Split, Index] = {}

    def index(self, split: Split) -> Index:
        """The samples in the order of the lists.

        Raises:
            DataError: a file is missing or malformed, lists and labels do not match, an image is
                in a list twice or in both, or none of the images is there.
        """
        if not self._splits:
            listed: dict[Split, Listed] = {
                part: self._read(self.folder, part) for part in ("train", "test")
            }
            (train, _), (test, _) = listed.values()
            refuse_shared(train, test, f"take the lists of {self.protocol} from one source")
            paths = _paths(self.folder, [*train, *test])
            self._splits = {
                part: Index([paths[key] for key in keys], keys, targets)
                for part, (keys, targets) in listed.items()
            }
        return self._splits[split]

    def official_split(self, split: Split) -> str:
        """The card's name of a split of this protocol."""
        if self.protocol == "csv":
            return split
        start = f"{split} by {self.protocol}"
        return next(name for name in self.card.splits if name.startswith(start))


def _paths(folder: Path, keys: list[str]) -> dict[str, Path]:
    """Key -> file, by the first layout in which one of the images is there."""
    looked = []
    for flat in (False, True):
        for place in ("Flickr", "images", "."):
            if not (folder / place).exists():
                continue
            paths = {
                key: folder / place / (key.rpartition("/")[2] if flat else key) for key in keys
            }
            looked.append(str(paths[keys[0]]))
            if any(path.exists() for path in paths.values()):
                return paths
    places = "\n  ".join(looked)
    raise DataError(
        f"none of the {len(keys):,} listed images is in {folder}; put the folder Flickr of the "
        f"images there. Looked for the first of them as\n  {places}"
    )


# ----------------------------------------------------------------------------------- the protocols
def _original(folder: Path, split: Split) -> Listed:
    """An official list with ``Groundtruth/TrainTestLabels``.

    Raises:
        DataError: a file is missing or malformed, or has another number of lines than the list.
    """
    images = folder / _LISTS[split]
    labels = folder / "Groundtruth" / "TrainTestLabels"
    keys = read_keys(images, _AGAIN)
    files = [labels / f"Labels_{name}_{_PART[split][0]}.txt" for name in NAMES]
    return keys, _read_columns(files, images, len(keys))


def _single_positive(folder: Path, split: Split) -> Listed:
    """Another list of official images, with ``Groundtruth/AllLabels``.

    Raises:
        DataError: as above, or the list names an image that the official list does not.
    """
    everything = folder / "ImageList" / "Imagelist.txt"
    row = {key: i for i, key in enumerate(read_keys(everything, _AGAIN))}
    listed = folder / _SINGLE_POSITIVE[split]
    keys = read_keys(listed, "write the benchmark's list there, one image path a line")
    for number, key in enumerate(keys, start=1):
        if key not in row:
            raise DataError(
                f"{listed} line {number}: {key!r} is not in {everything}; write the paths as they "
                "are written there"
            )
    labels = folder / "Groundtruth" / "AllLabels"
    files = [labels / f"Labels_{name}.txt" for name in NAMES]
    return keys, _read_columns(files, everything, len(row))[[row[key] for key in keys]]


def _table(folder: Path, split: Split) -> Listed:
    """One split of ``nus_wid_data.csv``, by the position of its columns.

    They are an image path, a list of concepts as Python writes it, and ``train`` or ``val``. A
    first row without such a list names the columns.

    Raises:
        DataError: the file is missing or malformed; the text names the line.
    """
    import pandas as pd

    file = folder / _TABLE
    text = io.StringIO(read_text(file, "download it again"))
    try:
        frame = pd.read_csv(text, header=None, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError(f"{file} is no table: {error}; download it again") from error
    if frame.shape[1] != 3:
        raise DataError(f"{file} has {frame.shape[1]} columns instead of path, labels and split")
    frame = frame.set_axis(["path", "labels", "part"], axis="columns")
    frame.index = pd.Index([f"{file} line {row + 1}" for row in range(len(frame))])
    if not frame["labels"].iloc[0].lstrip().startswith("["):
        frame = frame.iloc[1:]
    for where, part in frame["part"].items():
        if part not in ("train", "val"):
            raise DataError(f"{where}: {part!r} is neither 'train' nor 'val'")
    frame = frame[frame["part"] == _PART[split][1]]
    if not len(frame):
        raise DataError(f"{file} has no line of the split {_PART[split][1]!r}")
    keys = unique_keys(zip(frame.index, frame["path"], strict=True), "download it again")
    known = {
        labels: _read_labels(labels, str(where))
        for where, labels in frame["labels"].drop_duplicates().items()
    }
    return keys, np.stack([known[labels] for labels in frame["labels"]])


_PROTOCOLS = {
    "csv": (_TABLE, f"{_TABLE}, which is published with ASL's model zoo", _table),
    "original": (
        _LISTS["train"],
        "ImageList/{Train,Test}Imagelist.txt and Groundtruth/TrainTestLabels of the official "
        "ImageList.zip and Groundtruth.zip",
        _original,
    ),
    "single_positive": (
        _SINGLE_POSITIVE["train"],
        f"{' and '.join(_SINGLE_POSITIVE.values())}, the benchmark's own lists "
        "(formatted_train_images.npy and formatted_val_images.npy) as text, one image path a line, "
        "and ImageList/Imagelist.txt and Groundtruth/AllLabels of the official archives",
        _single_positive,
    ),
}
"""Protocol -> the file that it is known by, all that it needs, and what reads a split."""


def _read_columns(files: list[Path], images: Path, count: int) -> Targets:
    """int8 [N, C] from one file per label, with 0 or 1 for each of the N images."""
    targets_NC = np.empty((count, len(files)), np.int8)
    for c, file in enumerate(files):
        lines = [line.strip() for line in read_lines(file, _AGAIN)]
        if len(lines) != count:
            raise DataError(
                f"{file} has {len(lines)} lines, but {images} lists {count} images; {_AGAIN}"
            )
        if not set(lines) <= {"0", "1"}:
            number, line = next((i, one) for i, one in enumerate(lines, 1) if one not in ("0", "1"))
            raise DataError(f"{file} line {number}: {line!r} is neither 0 nor 1; {_AGAIN}")
        targets_NC[:, c] = [line == "1" for line in lines]
    return targets_NC


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
