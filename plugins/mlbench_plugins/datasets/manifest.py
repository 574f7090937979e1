"""A user's own pictures: any folder of images with a file that says their labels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError, Dataset, DatasetCard, Index, Split, digest
from mlbench_plugins.datasets.duplicates import drawn, first_copies, together
from mlbench_plugins.datasets.manifest_columns import Columns
from mlbench_plugins.datasets.manifest_forms import locate_source, name_of, read_listing
from mlbench_plugins.datasets.manifest_listing import LISTED, Listing
from mlbench_plugins.datasets.photographs import FINE_TUNING, is_file, is_folder

_LOG = logging.getLogger(__name__)

Validation = Literal["train", "leave_out"]


class Manifest(Dataset):
    """Your own pictures, as ``manifest:photos.csv`` or ``manifest:FOLDER``; no code is needed.

    The part after the colon is one of

    - a table, one row an image: .csv or .tsv in UTF-8, .jsonl, .json (a list of objects, or an
      object of file name -> labels) or .parquet (needs pyarrow). A column ``image`` (or ``file``,
      ``path``, ``filename``) names the picture. Either a column ``labels`` (or ``tags``) lists its
      labels, parted by ``;`` or ``|`` or as a JSON list, and a blank is a picture without labels;
      or every other column is a label with 1 (present), 0 (absent), and blank or -1 (unknown).
      Columns ``split`` (train, val, test) and ``group`` are optional;
    - an instances json in COCO's form; a label is present where an instance is annotated;
    - a folder with one folder a label, below ``train`` and ``test`` or not; one file, byte for
      byte and by name, in several of them has all their labels;
    - YOLO's ``data.yaml`` or ``classes.txt``, or the folder that holds it; a picture without a
      label file has no labels.

    Pictures are looked for from the table's folder, its ``images``, and the folder of ``--data``.
    A run with ``allow_missing`` goes on without those that are not there. Labels are sorted by
    name; COCO's stand by id, YOLO's as in its file.

    Without a split column, pictures are parted by a hash of their group's smallest key, so that
    another picture moves none. Pictures of one group, and exact duplicates, stay together. A
    ``val`` part joins train, as in VOC's trainval; where nothing is ``test``, it is scored.

    Args:
        source: the part after the colon; looked for from here, then in the folder of ``--data``.
        root: the folder that ``--data`` names.
        cache: where digests of files are kept.
        label_names: the labels in their order. A list with another one is an error; of columns,
            the others are left out.
        image_column, split_column, group_column: where names do not say it.
        label_columns: the column of label lists, or the columns of one label each.
        separator: what parts labels in a list, if neither ``;`` nor ``|``.
        test_share: part of the pictures that is scored, where the manifest has no split.
        split_seed: another seed, another such split.
        val: ``leave_out`` keeps ``val`` pictures out of train.
    """

    card = DatasetCard(
        title="Your own pictures",
        bibtex="""@misc{own_pictures,
  title = {Pictures of the user's own},
  note  = {Read from a manifest by mlbench}
}""",
        licence="the user's own",
        home="README.md, section Your own pictures",
        # An eighth of the arithmetic of the benchmarks' resnet101 at 448, so that one GPU
        # is enough for tens of thousands of pictures; without any, the probe track is for them.
        budget={**FINE_TUNING, "backbone": "resnet50", "image_size": 224},
        notes="A board compares methods on these pictures and this split alone.",
    )

    def __init__(
        self,
        source: str,
        root: Path | None,
        cache: Path,
        label_names: Sequence[str] | None = None,
        image_column: str | None = None,
        label_columns: Sequence[str] | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        separator: str | None = None,
        test_share: float = 0.2,
        split_seed: int = 0,
        val: Validation = "train",
    ) -> None:
        columns = Columns(
            image=_column("image_column", image_column),
            labels=_names("label_columns", label_columns),
            split=_column("split_column", split_column),
            group=_column("group_column", group_column),
            separator=_column("separator", separator),
            names=_names("label_names", label_names),
        )
        _refuse_options(test_share, split_seed, val)
        if root is not None and not is_folder(root):
            raise DataError(
                f"{root} is no folder; name the one that holds your pictures with --data DIR, or "
                "leave --data and $MLBENCH_DATA out where the manifest says where they are"
            )
        place = locate_source(source, root)
        listing = read_listing(place, columns, root, cache)
        keys, (files, self._missing) = listing.keys(), listing.files()
        copies = _copies(files, cache)
        groups = together(keys, listing.groups or (), copies)
        if listing.splits is None:
            test = drawn(groups, test_share, f"{split_seed}:")
            parts: dict[Split, NDArray[np.bool_]] = {"train": ~test, "test": test}
        else:
            parts = _told(listing.splits, val)
            _warn_of_leaks(listing, keys, copies, parts)
        self.names = listing.names
        self._groups = dict(zip(keys, groups, strict=True))
        self._objects = listing.objects
        self._rows = {key: row for row, key in enumerate(keys)}
        told = zip(keys, listing.splits or (), strict=False)
        self._held = {key for key, split in told if split == "val"}
        self._indices = {split: _index(listing, keys, files, rows) for split, rows in parts.items()}
        self._refuse_empty(place, test_share if listing.splits is None else None)
        self._warn_of_positives(place)
        _warn_of_spelling(listing)
        self.card = self._own_card(place)

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by key."""
        return self._indices[split]

    def validation_keys(self) -> Sequence[str] | None:
        """The ``val`` pictures, where they joined train."""
        return sorted(self._held.intersection(self._indices["train"].keys)) or None

    def train_groups(self) -> Sequence[str]:
        """Pictures of one group, and exact duplicates."""
        return [self._groups[key] for key in self._indices["train"].keys]

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32] | None:
        """Instances in a COCO json, or lines of YOLO's files; a table says nothing of objects."""
        if self._objects is None:
            return None
        return self._objects[[self._rows[key] for key in keys]]

    def missing(self) -> str | None:
        """Which pictures of the manifest are not there, and where it lists them."""
        return self._missing

    def _refuse_empty(self, place: Path, share: float | None) -> None:
        for split, index in self._indices.items():
            if not len(index):
                remedy = (
                    "mark some rows so in the split column"
                    if share is None
                    else f"test_share {share:g} of its groups leaves none: change test_share or "
                    "split_seed, or add a column 'split'"
                )
                raise DataError(f"{place}: the {split} split is empty; {remedy}")

    def _warn_of_positives(self, place: Path) -> None:
        effects: dict[Split, str] = {
            "train": "nothing can be learnt of them",
            "test": "they are left out of mAP",
        }
        for split, effect in effects.items():
            present_C = (self._indices[split].targets == 1).any(axis=0)
            lacking = [name for name, has in zip(self.names, present_C, strict=True) if not has]
            if lacking:
                _warn(f"{place}: labels without a positive in {split}: {_first(lacking)}: {effect}")

    def _own_card(self, place: Path) -> DatasetCard:
        """The set is its own only edition, called by its name and its digest."""
        train, test = self._indices["train"], self._indices["test"]
        found = digest(train, test, self.names)
        name = name_of(place)
        return type(self).card.model_copy(
            update={
                "title": name,
                "identities": {found: f"{name}-{found[:8]}"},
            }
        )


# ------------------------------------------------------------------------------------------ splits
def _told(splits: Sequence[str], val: Validation) -> dict[Split, NDArray[np.bool_]]:
    """The parts that a manifest names itself; ``val`` is scored where nothing is ``test``."""
    told = np.array(splits)
    if not (told == "test").any():
        return {"train": told == "train", "test": told == "val"}
    train = (told == "train") | ((told == "val") & (val == "train"))
    return {"train": train, "test": told == "test"}


def _warn_of_leaks(
    listing: Listing, keys: Sequence[str], copies: Sequence[int], parts: dict[Split, Any]
) -> None:
    """The split is the user's: what is on both sides is said and not moved."""
    for what, groups in (
        ("pictures of the test split are byte for byte in train, too", copies),
        ("pictures of the test split have others of their group in train", listing.groups),
    ):
        if groups is None:
            continue
        trained = {g for g, here in zip(groups, parts["train"], strict=True) if here}
        shared = [
            key
            for key, group, here in zip(keys, groups, parts["test"], strict=True)
            if here and group is not None and group in trained
        ]
        if shared:
            _warn(f"{listing.source}: {len(shared)} {what}: {_first(shared)}")


def _warn_of_spelling(listing: Listing) -> None:
    """What looks like a slip of the pen, which nothing else would show."""
    if listing.unused:
        _warn(
            f"{listing.source}: columns that mean nothing here: {_first(listing.unused)}. A group "
            "or split under another name is given by the option group_column or split_column"
        )
    spellings: dict[str, list[str]] = {}
    for name in listing.names:
        spellings.setdefault(name.casefold(), []).append(name)
    alike = ["/".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        _warn(f"{listing.source}: labels that differ in case alone: {_first(alike)}")


def _copies(files: Sequence[Path], cache: Path) -> list[int]:
    """``first_copies``; of a picture that is not there nobody knows a copy."""
    here = [i for i, file in enumerate(files) if is_file(file)]
    copies = list(range(len(files)))
    for place, copy in zip(here, first_copies([files[i] for i in here], cache), strict=True):
        copies[place] = here[copy]
    return copies


def _index(
    listing: Listing, keys: Sequence[str], files: Sequence[Path], rows: NDArray[np.bool_]
) -> Index:
    order = sorted(np.flatnonzero(rows).tolist(), key=keys.__getitem__)
    return Index([files[i] for i in order], [keys[i] for i in order], listing.targets[order])


@functools.cache
def _warn(text: str) -> None:
    """Once a process, however often a matrix opens the set."""
    _LOG.warning("%s", text)


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


# ----------------------------------------------------------------------------------------- options
def _column(option: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise DataError(f"manifest has no {option}={value!r}; give a text")


def _names(option: str, value: object) -> tuple[str, ...] | None:
    """Names as texts; a suite file may write the name ``7`` without quotes."""
    if value is None:
        return None
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise DataError(f"manifest has no {option}={value!r}; give a list of names")
    for name in listed:
        if not (isinstance(name, str) or type(name) is int) or not str(name).strip():
            raise DataError(f"manifest has no {option} with {name!r}; put the name in quotes")
    names = tuple(str(name).strip() for name in listed)
    if len(set(names)) < len(names):
        raise DataError(f"manifest has no {option}={value!r}: a name stands there twice")
    return names


def _refuse_options(test_share: object, split_seed: object, val: object) -> None:
    if not isinstance(test_share, float | int) or not 0 < test_share < 1:
        raise DataError(f"manifest has no test_share={test_share!r}; give a part between 0 and 1")
    if type(split_seed) is not int:
        raise DataError(f"manifest has no split_seed={split_seed!r}; give a whole number")
    if val not in get_args(Validation):
        raise DataError(
            f"manifest has no val={val!r}; choose from {', '.join(get_args(Validation))}"
        )
