"""NUS-WIDE (Chua et al., CIVR 2009), 81 concepts, by the protocols in circulation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from mlbench.types import DataError, Dataset, Index, Split, Targets
from mlbench_plugins.datasets import nuswide_files
from mlbench_plugins.datasets.nuswide_files import NAMES
from mlbench_plugins.datasets.photographs import (
    choose,
    exists,
    locate,
    read_card,
    refuse_shared,
)

Protocol = Literal["csv", "original", "single_positive"]

_PLACES = (".", "nuswide", "NUS-WIDE", "nus-wide", "nus_wide")
_NEEDS = {
    "csv": (
        nuswide_files.TABLE,
        f"{nuswide_files.TABLE}, which is published with ASL's model zoo",
    ),
    "original": (
        nuswide_files.LISTS["train"],
        "ImageList/{Train,Test}Imagelist.txt and Groundtruth/TrainTestLabels of the official "
        "ImageList.zip and Groundtruth.zip",
    ),
    "single_positive": (
        nuswide_files.SINGLE_POSITIVE["train"],
        f"{' and '.join(nuswide_files.SINGLE_POSITIVE.values())}, the benchmark's own lists "
        "(formatted_train_images.npy and formatted_val_images.npy) as text, one image path a line, "
        "and ImageList/Imagelist.txt and Groundtruth/AllLabels of the official archives",
    ),
}
"""Protocol -> the file that it is known by, and all that it needs."""


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
        sign, needs = _NEEDS[protocol]
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
            listed: dict[Split, tuple[list[str], Targets]] = {
                part: nuswide_files.READERS[self.protocol](self.folder, part)
                for part in ("train", "test")
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
            if not exists(folder / place):
                continue
            paths = {
                key: folder / place / (key.rpartition("/")[2] if flat else key) for key in keys
            }
            looked.append(str(paths[keys[0]]))
            if any(exists(path) for path in paths.values()):
                return paths
    places = "\n  ".join(looked)
    raise DataError(
        f"none of the {len(keys):,} listed images is in {folder}; put the folder Flickr of the "
        f"images there. Looked for the first of them as\n  {places}"
    )
