"""A user's own pictures: a folder of images and a file with their labels."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlbench.text import count, in_utf8
from mlbench.types import DataError, Dataset, DatasetCard, Index, Interpretation, Split, digest
from mlbench_plugins.datasets.duplicates import drawn, first_copies, together
from mlbench_plugins.datasets.manifest_columns import TABLES, from_table
from mlbench_plugins.datasets.manifest_doubts import (
    about_copies,
    about_leaks,
    about_names,
    about_states,
)
from mlbench_plugins.datasets.manifest_exports import from_cvat, from_json, not_a_table
from mlbench_plugins.datasets.manifest_folders import from_folder, tables_in
from mlbench_plugins.datasets.manifest_labels import Columns
from mlbench_plugins.datasets.manifest_listing import Listing
from mlbench_plugins.datasets.manifest_tables import ENCODING, is_list_of_pictures, read_json
from mlbench_plugins.datasets.manifest_yolo import NAMES, NAMES_IN, from_yolo
from mlbench_plugins.datasets.photographs import choose, read_card, read_text

_LOG = logging.getLogger(__name__)
_warn = functools.cache(functools.partial(_LOG.warning, "%s"))
"""Warns once a process, however often a matrix opens the set."""

Validation = Literal["train", "leave_out"]


class Manifest(Dataset):
    """Your own pictures, as ``manifest:photos.csv`` or ``manifest:FOLDER``; no code is needed.

    The part after the colon is one of

    - a table with a row per image, or per image and label: .csv or .tsv in UTF-8, .jsonl, .json (a
      list of objects, or an object of file name -> labels) or .parquet (needs pyarrow). A column
      ``image`` (or ``file``, ``path``, ``filename``) names the picture. Either a column ``labels``
      (or ``tags``, or ``label1``, ``label2``, ...) lists its labels, separated by ``;`` or ``|`` or
      as JSON, Python or numpy print a list, and a blank is a picture without labels; or every
      other column is a label with 1 (present), 0 (absent), and blank or -1 (unknown). Columns
      ``split`` (train, val, test; or ``is_valid``, ``is_test``) and ``group`` are optional;
    - a .txt with a picture and 1 or 0 for each label in a line;
    - an export of COCO's instances, Label Studio (JSON, JSON-MIN, CSV), Datumaro, FiftyOne (its
      ``labels.json``) or CVAT (its XML for images); a label is present where anything has it;
    - a folder with one folder per label, below ``train`` and ``test`` or not; a file that is in
      several of them, with the same bytes and name, has all their labels;
    - a folder with a ``_classes.csv`` (Roboflow) or ``metadata.jsonl`` or ``.csv`` (Hugging Face)
      in it or in each of its splits;
    - YOLO's ``data.yaml`` or ``classes.txt``, or its folder; a picture without a label file has no
      labels.

    ``mlbench data look`` shows how it was understood. Pictures are looked for in the table's
    folder, its ``images``, and the folder of ``--data``. A run with ``allow_missing`` leaves out
    those that are missing. Labels are sorted by name; COCO's by id, YOLO's as in its file.

    Without a split column, a hash of their group's smallest key splits the pictures, so that
    adding a picture moves no other. Pictures of one group, and exact duplicates, stay together. A
    ``val`` part joins train, as in VOC's trainval; if nothing is ``test``, it is scored.

    Args:
        source: the part after the colon: a path relative to here or to the folder of ``--data``.
        root: the folder that ``--data`` names.
        cache: where digests of files are kept.
        label_names: the labels in their order. A list that has another label is an error; columns
            of other labels are left out.
        image_column, split_column, group_column: these columns, if their names are unusual.
        label_columns: the column of label lists, or the columns of one label each.
        separator: what separates labels in a list, if neither ``;`` nor ``|``.
        absent: ``blank`` or ``-1``, if that stands for absent in columns of one label.
        test_share: share of the pictures that is scored, if the manifest has no split.
        split_seed: seed of such a split.
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
        absent: str | int | None = None,
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
            absent=None if absent is None else str(absent),
            names=_names("label_names", label_names),
        )
        _check_options(root, test_share, val, columns.absent)
        place = _locate(source, root)
        listing = _read(place, columns, cache)
        if root is not None:
            listing = replace(listing, folders=(*listing.folders, root))
        keys, (files, self._missing, renamed) = listing.keys(), listing.files()
        for text in (*keys, *listing.names, *filter(None, listing.groups or ())):
            if (plain := in_utf8(text)) != text:
                raise DataError(f"{place}: {plain} is not UTF-8: JSON cut a character; mend it")
        present = [i for i, file in enumerate(files) if file.is_file()]
        copies = first_copies(files, cache, present)
        groups = together(keys, listing.groups or (), copies)
        parts = _parts(listing.splits, groups, test_share, split_seed, val)
        _refuse_empty(place, listing, parts, groups, test_share)
        self._indices = {split: _index(listing, keys, files, rows) for split, rows in parts.items()}
        self._groups = dict(zip(keys, groups, strict=True))
        self._objects = listing.objects
        self._rows = {key: row for row, key in enumerate(keys)}
        listed = zip(keys, listing.splits or (), strict=False)
        self._val = {key for key, split in listed if split == "val"}
        self.names = listing.names
        doubts = [
            *about_copies(keys, copies, listing.targets),
            *(about_leaks(listing, keys, copies, parts) if listing.splits is not None else ()),
            *about_states(self._indices, self.names),
            *about_names(self.names),
            *([renamed] if renamed else []),
            *listing.doubts,
        ]
        drawn_by = f"drawn: a hash of each group, test_share {test_share:g}, seed {split_seed}"
        facts = {**listing.facts, **({"split": drawn_by} if listing.splits is None else {})}
        self._interpretation = Interpretation(facts, tuple(f"{place}: {doubt}" for doubt in doubts))
        for text in self._interpretation.warnings:
            _warn(text)
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
        """Count a COCO json's instances or YOLO's lines, [N, C]; None for tables and folders."""
        if self._objects is None:
            return None
        return self._objects[[self._rows[key] for key in keys]]

    def missing(self) -> str | None:
        """Which pictures of the manifest are missing, and where it lists them."""
        return self._missing

    def interpretation(self) -> Interpretation:
        """How the manifest was read, and what may be meant otherwise."""
        return self._interpretation

    def _card_of(self, listing: Listing) -> DatasetCard:
        """The card, whose only edition is this set, called by its name and its digest."""
        found = digest(self._indices["train"], self._indices["test"], self.names)
        name = "-".join(listing.name.split()) or "pictures"
        identities = {found: f"{name}-{found[:8]}"}
        return type(self).card.model_copy(update={"title": name, "identities": identities})


# ----------------------------------------------------------------------------------------- reading
def _locate(source: str, root: Path | None) -> Path:
    """The file or folder that the part after the colon names, as it is or below ``root``."""
    tried = [Path(source).expanduser(), *([root / source] if root is not None else [])]
    for place in tried:
        if place.exists():
            return place
    raise DataError(
        f"manifest:{source}: there is no {' and no '.join(map(str, tried))}; name a table of "
        "images (.csv, .tsv, .json, .jsonl, .parquet), a COCO json, a data.yaml or a folder"
    )


def _read(place: Path, columns: Columns, cache: Path) -> Listing:
    """Read a manifest of any form, recognised by its ending and content."""
    ending = place.suffix.lower()
    if place.is_dir():
        names = next((place / name for name in NAMES_IN if (place / name).is_file()), None)
        if columns != Columns() and not tables_in(place):
            raise not_a_table(place)
        return from_folder(place, columns, cache) if names is None else from_yolo(names)
    if ending in TABLES or (ending == ".txt" and is_list_of_pictures(read_text(place, ENCODING))):
        return from_table(place, columns)
    if ending == ".json":
        content = read_json(place)
        return from_json(place, content, columns) or from_table(place, columns, content)
    if ending == ".xml":
        return from_cvat(place, columns)
    if ending not in NAMES:
        known = ", ".join((*TABLES, ".json", ".xml", *NAMES))
        raise DataError(f"{place} is no folder and ends in none of {known}")
    if columns != Columns():
        raise not_a_table(place)
    return from_yolo(place)


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


def _refuse_empty(
    place: Path,
    listing: Listing,
    parts: dict[Split, NDArray[np.bool_]],
    groups: Sequence[str],
    test_share: float,
) -> None:
    empty = next((split for split, rows in parts.items() if not rows.any()), None)
    if empty is None:
        return
    if listing.splits is not None:
        found = ", ".join(f"{n:,} of {split}" for split, n in Counter(listing.splits).items())
        remedy = f"it names {found}; mark some pictures as {empty} ({listing.facts['split']})"
    else:
        seeds = (f"{seed}:" for seed in range(1000))
        draws = (drawn(groups, test_share, seed) for seed in seeds)
        seed = next((i for i, rows in enumerate(draws) if rows.any() and not rows.all()), None)
        remedy = f"it was drawn of {count(len(set(groups)), 'group')} of pictures; "
        remedy += "add pictures" if seed is None else f"another seed: --option split_seed={seed}"
    raise DataError(f"{place}: the {empty} split is empty; {remedy}")


def _index(
    listing: Listing, keys: Sequence[str], files: Sequence[Path], rows: NDArray[np.bool_]
) -> Index:
    order = sorted(np.flatnonzero(rows).tolist(), key=keys.__getitem__)
    return Index([files[i] for i in order], [keys[i] for i in order], listing.targets[order])


# ----------------------------------------------------------------------------------------- options
def _check_options(root: Path | None, test_share: object, val: object, absent: str | None) -> None:
    choose("manifest", "val", val, get_args(Validation))
    choose("manifest", "absent", absent, (None, "blank", "-1"))
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
    listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise DataError(f"manifest has no {option}={value!r}; give names: {option}=cat,dog")
    for name in listed:
        if type(name) not in (str, int) or not str(name).strip():
            raise DataError(f"manifest has no {option} with {name!r}; put the name in quotes")
    names = tuple(str(name).strip() for name in listed)
    if len(set(names)) < len(names):
        raise DataError(f"manifest has no {option}={value!r}: a name is given twice")
    return names
