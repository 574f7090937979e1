"""A user's own pictures: a folder of images and a file with their labels."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.text import shorten
from mlbench.types import DataError, Dataset, DatasetCard, Index, Split, digest
from mlbench_plugins.datasets.duplicates import drawn, first_copies, together
from mlbench_plugins.datasets.manifest_annotations import (
    YOLO,
    from_coco,
    from_folder,
    from_yolo,
)
from mlbench_plugins.datasets.manifest_columns import TABLES, Columns, from_table
from mlbench_plugins.datasets.manifest_listing import Listing
from mlbench_plugins.datasets.manifest_tables import read_json
from mlbench_plugins.datasets.photographs import choose, read_card

_LOG = logging.getLogger(__name__)

Validation = Literal["train", "leave_out"]


class Manifest(Dataset):
    """Your own pictures, as ``manifest:photos.csv`` or ``manifest:FOLDER``; no code is needed.

    The part after the colon is one of

    - a table with a row per image: .csv or .tsv in UTF-8, .jsonl, .json (a list of objects, or an
      object of file name -> labels) or .parquet (needs pyarrow). A column ``image`` (or ``file``,
      ``path``, ``filename``) names the picture. Either a column ``labels`` (or ``tags``) lists its
      labels, separated by ``;`` or ``|`` or as a JSON list, and a blank is a picture without
      labels; or every other column is a label with 1 (present), 0 (absent), and blank or -1
      (unknown). Columns ``split`` (train, val, test) and ``group`` are optional;
    - an instances json in COCO's form; a label is present where an instance is annotated;
    - a folder with one folder per label, below ``train`` and ``test`` or not; a file that is in
      several of them, with the same bytes and name, has all their labels;
    - YOLO's ``data.yaml`` or ``classes.txt``, or its folder; a picture without a label file has no
      labels.

    Pictures are looked for in the table's folder, its ``images``, and the folder of ``--data``. A
    run with ``allow_missing`` leaves out those that are missing. Labels are sorted by name;
    COCO's by id, YOLO's as in its file.

    Without a split column, a hash of their group's smallest key splits the pictures, so that
    adding a picture moves no other. Pictures of one group, and exact duplicates, stay together. A
    ``val`` part joins train, as in VOC's trainval; if nothing is ``test``, it is scored.

    Args:
        source: the part after the colon; looked for from here, then in the folder of ``--data``.
        root: the folder that ``--data`` names.
        cache: where digests of files are kept.
        label_names: the labels in their order. A list with another one is an error; of columns,
            the others are left out.
        image_column, split_column, group_column: if their names are not the usual ones.
        label_columns: the column of label lists, or the columns of one label each.
        separator: what separates labels in a list, if neither ``;`` nor ``|``.
        test_share: share of the pictures that is scored, if the manifest has no split.
        split_seed: another seed gives another such split.
        val: ``leave_out`` keeps ``val`` pictures out of train.
    """

    card = read_card("manifest")

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
            image=_text("image_column", image_column),
            labels=_names("label_columns", label_columns),
            split=_text("split_column", split_column),
            group=_text("group_column", group_column),
            separator=_text("separator", separator),
            names=_names("label_names", label_names),
        )
        _check_options(root, test_share, val)
        place = _locate(source, root)
        listing = _read(place, columns, cache)
        if root is not None:
            listing = replace(listing, folders=(*listing.folders, root))
        keys, (files, self._missing) = listing.keys(), listing.files()
        present = [i for i, file in enumerate(files) if file.is_file()]
        copies = first_copies(files, cache, present)
        groups = together(keys, listing.groups or (), copies)
        parts = _parts(listing.splits, groups, test_share, split_seed, val)
        self._indices = {split: _index(listing, keys, files, rows) for split, rows in parts.items()}
        self._groups = dict(zip(keys, groups, strict=True))
        self._objects = listing.objects
        self._rows = {key: row for row, key in enumerate(keys)}
        listed = zip(keys, listing.splits or (), strict=False)
        self._val = {key for key, split in listed if split == "val"}
        self.names = listing.names
        for split, index in self._indices.items():
            if not len(index):
                remedy = "change test_share or split_seed, or mark some rows so in a column 'split'"
                raise DataError(f"{place}: the {split} split is empty; {remedy}")
        if listing.splits is not None:
            _warn_of_leaks(listing, keys, copies, parts)
        self._warn_of_positives(place)
        _warn_of_spelling(listing)
        self.card = self._card_of(listing)

    def index(self, split: Split) -> Index:
        """The samples of a split, sorted by key."""
        return self._indices[split]

    def validation_keys(self) -> Sequence[str] | None:
        """The ``val`` pictures, if they joined train."""
        return sorted(self._val.intersection(self._indices["train"].keys)) or None

    def train_groups(self) -> Sequence[str]:
        """Pictures of one group, and exact duplicates."""
        return [self._groups[key] for key in self._indices["train"].keys]

    def objects(self, keys: Sequence[str]) -> NDArray[np.int32] | None:
        """Instances in a COCO json, or lines of YOLO's files; None for tables and folders."""
        if self._objects is None:
            return None
        return self._objects[[self._rows[key] for key in keys]]

    def missing(self) -> str | None:
        """Which pictures of the manifest are missing, and where it lists them."""
        return self._missing

    def _warn_of_positives(self, place: Path) -> None:
        effects: tuple[tuple[Split, int, str, str], ...] = (
            ("train", 1, "positive", "they cannot be learnt"),
            ("test", 1, "positive", "they are left out of mAP"),
            ("test", 0, "negative", "they are left out of mAP"),
        )
        for split, state, what, effect in effects:
            has_C = (self._indices[split].targets == state).any(axis=0)
            lacking = [name for name, has in zip(self.names, has_C, strict=True) if not has]
            if lacking:
                _warn(f"{place}: labels without a {what} in {split}: {shorten(lacking)}: {effect}")

    def _card_of(self, listing: Listing) -> DatasetCard:
        """The set is its own only edition, called by its name and its digest."""
        found = digest(self._indices["train"], self._indices["test"], self.names)
        name = "-".join(listing.name.split()) or "pictures"
        identities = {found: f"{name}-{found[:8]}"}
        return type(self).card.model_copy(update={"title": name, "identities": identities})


# ----------------------------------------------------------------------------------------- reading
def _locate(source: str, root: Path | None) -> Path:
    """The file or folder of the part after the colon, as it is written or below ``root``."""
    tried = [Path(source).expanduser(), *([root / source] if root is not None else [])]
    for place in tried:
        if place.exists():
            return place
    raise DataError(
        f"manifest:{source}: there is no {' and no '.join(map(str, tried))}; name a table of "
        "images (.csv, .tsv, .json, .jsonl, .parquet), a COCO json, a data.yaml or a folder"
    )


def _read(place: Path, columns: Columns, cache: Path) -> Listing:
    """A manifest of any form, recognised by its ending and content."""
    ending = place.suffix.lower()
    content = None
    if not place.is_dir():
        if ending in TABLES:
            return from_table(place, columns)
        if ending not in (".json", *YOLO):
            raise DataError(
                f"{place} is no folder and ends in none of {', '.join((*TABLES, '.json', *YOLO))}"
            )
        if ending == ".json":
            content = read_json(place)
            if not (isinstance(content, dict) and {"images", "annotations"} <= content.keys()):
                return from_table(place, columns, content)
    if columns != Columns():
        raise DataError(
            f"{place} is no table: label_names, separator and the options of columns do not apply; "
            "leave them out (a suite's own `labels` selects labels of any data set)"
        )
    if content is not None:
        return from_coco(place, content)
    return from_folder(place, cache) if place.is_dir() else from_yolo(place)


# ------------------------------------------------------------------------------------------ splits
def _parts(
    splits: Sequence[str] | None,
    groups: Sequence[str],
    test_share: float,
    split_seed: int,
    val: Validation,
) -> dict[Split, NDArray[np.bool_]]:
    """The rows of each split: as listed, else drawn. ``val`` is scored if nothing is ``test``."""
    if splits is None:
        drawn_N = drawn(groups, test_share, f"{split_seed}:")
        return {"train": ~drawn_N, "test": drawn_N}
    listed = np.array(splits)
    if not (listed == "test").any():
        return {"train": listed == "train", "test": listed == "val"}
    train = (listed == "train") | ((listed == "val") & (val == "train"))
    return {"train": train, "test": listed == "test"}


def _warn_of_leaks(
    listing: Listing, keys: Sequence[str], copies: Sequence[int], parts: dict[Split, Any]
) -> None:
    """Warn of pictures on both sides of the user's own split, which is kept."""
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
            _warn(f"{listing.source}: {len(shared)} {what}: {shorten(shared)}")


def _warn_of_spelling(listing: Listing) -> None:
    """Warn of probable typing errors."""
    if listing.unused:
        _warn(
            f"{listing.source}: unused columns: {shorten(listing.unused)}. Groups and splits of "
            "other names need the option group_column or split_column"
        )
    spellings: dict[str, list[str]] = {}
    for name in listing.names:
        spellings.setdefault(name.casefold(), []).append(name)
    alike = ["/".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        _warn(f"{listing.source}: labels that differ only in case: {shorten(alike)}")


def _index(
    listing: Listing, keys: Sequence[str], files: Sequence[Path], rows: NDArray[np.bool_]
) -> Index:
    order = sorted(np.flatnonzero(rows).tolist(), key=keys.__getitem__)
    return Index([files[i] for i in order], [keys[i] for i in order], listing.targets[order])


@functools.cache
def _warn(text: str) -> None:
    """Warn once per process, however often a matrix opens the set."""
    _LOG.warning("%s", text)


# ----------------------------------------------------------------------------------------- options
def _check_options(root: Path | None, test_share: object, val: object) -> None:
    choose("manifest", "val", val, get_args(Validation))
    if not isinstance(test_share, float | int) or not 0 < test_share < 1:
        raise DataError(f"manifest has no test_share={test_share!r}; it is between 0 and 1")
    if root is not None and not root.is_dir():
        raise DataError(
            f"{root} is no folder; name the folder of your pictures with --data DIR, or leave "
            "out --data and $MLBENCH_DATA"
        )


def _text(option: str, value: object) -> str | None:
    if value == "":
        raise DataError(f"manifest has no {option}={value!r}; give a text")
    return None if value is None else str(value)


def _names(option: str, value: object) -> tuple[str, ...] | None:
    """Names as texts; a suite file may write the name ``7`` without quotes."""
    if value is None:
        return None
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise DataError(f"manifest has no {option}={value!r}; give a list of names")
    for name in listed:
        if type(name) not in (str, int) or not str(name).strip():
            raise DataError(f"manifest has no {option} with {name!r}; put the name in quotes")
    names = tuple(str(name).strip() for name in listed)
    if len(set(names)) < len(names):
        raise DataError(f"manifest has no {option}={value!r}: a name is given twice")
    return names
