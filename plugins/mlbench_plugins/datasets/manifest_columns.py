"""Turn the columns of a table into images, labels, splits and groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from mlbench.text import count, shorten
from mlbench.types import DataError
from mlbench_plugins.datasets.manifest_labels import (
    BLANK,
    Columns,
    choose,
    read_labels,
    refuse_states,
    require,
    state_of,
    states_of,
    stem,
    text_of,
)
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing
from mlbench_plugins.datasets.manifest_tables import TEXTS, read_table
from mlbench_plugins.datasets.photographs import naming

if TYPE_CHECKING:
    import pandas as pd

TABLES = (*TEXTS, ".parquet")

IMAGE = ("image", "file", "path", "filename", "file_name", "image_path", "filepath")
IMAGE_TOO = ("image_id", "imageid", "image_name", "img", "img_path", "photo", "picture", "fname")
"""Names of the column of pictures if none of ``IMAGE`` is there."""

CORRECTIONS = {"add", "remove"}
"""Columns that the table of ``mlbench errors`` has beside the labels."""
LABEL_STUDIO = {"annotation_id", "lead_time"}
LABEL_STUDIO_OWN = (*LABEL_STUDIO, "id", "annotator", "created_at", "updated_at", "agreement")


NO_NAMES = "the list names no labels; name them in their order by the option label_names"


def from_table(file: Path, columns: Columns, content: Any = None) -> Listing:
    """Read a table of images.

    Args:
        file: the table.
        columns: which columns mean what.
        content: the parsed content, for a .json.

    Raises:
        DataError: the table is malformed, a column is missing or ambiguous, or a cell makes no
            sense.
    """
    listed = file.suffix.lower() == ".txt"
    with naming(file):
        frame = read_table(file, content)
        if listed and columns.names and len(columns.names) == len(frame.columns) - 1:
            frame.columns = ["image", *columns.names]
        found = from_frame(file, frame, columns)
    if not listed or columns.names:
        return found
    return replace(found, doubts=(*found.doubts, NO_NAMES))


def from_frame(file: Path, frame: pd.DataFrame, columns: Columns) -> Listing:
    """Like ``from_table``, from a data frame; errors do not name the file."""
    for name in columns.labels or ():
        require(frame, name, "label_columns")
    others = [name for name in frame.columns if name not in (columns.labels or ())]
    left_out: dict[str, str] = {}
    if LABEL_STUDIO.issubset(others):
        left_out = dict.fromkeys((n for n in others if n in LABEL_STUDIO_OWN), "of Label Studio")
        others = [name for name in others if name not in left_out]
    image = choose(frame, others, "image_column", columns.image, IMAGE, IMAGE_TOO)
    if image is None:
        raise DataError(
            f"it has no column of pictures ({', '.join(IMAGE[:4])}), but {shorten(others)}: name "
            "one by the option image_column"
        )
    others = [name for name in others if name != image]
    images = filled(frame, image)
    if left_out:
        images = list(map(label_studio_path, images))
    split, splits = _splits(frame, others, columns)
    group = choose(frame, others, "group_column", columns.group, ("group",))
    others = [name for name in others if name not in (*split, group)]
    if left_out and columns.labels is None and len(others) == 1:
        columns = replace(columns, labels=tuple(others))
    found = read_labels(frame, others, columns)
    unused = [name for name in others if name not in found.columns]
    if found.lists and columns.labels is None and len(set(images)) < len(images):
        refuse_states(frame, unused, found.columns)
    for name in unused:
        blank = {*states_of(frame[name])} == {BLANK}
        ours = name in CORRECTIONS and CORRECTIONS.issubset(unused)
        kind = "blank throughout" if blank else "unused"
        left_out[name] = "of mlbench errors" if ours else kind
    facts = {"pictures": f"column {image!r}", "labels": found.fact}
    flags = [f"{name} is taken for the split, no label" for name in split if stem(name) in SPLITS]
    if split:
        facts["split"] = f"column {' and '.join(map(repr, split))}"
    if left_out:
        facts["left out"] = ", ".join(f"{name} ({why})" for name, why in left_out.items())
    listing = Listing(
        source=file,
        name=file.resolve().stem,
        folders=(file.parent, file.parent / "images"),
        images=images,
        names=found.names,
        targets=found.targets,
        splits=splits,
        groups=None if group is None else [text_of(cell) or None for cell in frame[group]],
        places=list(frame.index),
        facts=facts,
        doubts=(*found.doubts, *flags, *_unused(left_out)),
    )
    return _one_entry_a_picture(listing) if found.lists else listing


def _unused(left_out: dict[str, str]) -> Iterator[str]:
    """Yield warnings of columns that are blank throughout, and of unused ones."""
    for reason, text in {
        "blank throughout": "columns that are blank throughout are left out: {}",
        "unused": "unused columns: {}. Groups and splits of other names need the option "
        "group_column or split_column",
    }.items():
        if names := [name for name, why in left_out.items() if why == reason]:
            yield text.format(shorten(names))


def label_studio_path(image: str) -> str:
    """A path without ``/data/upload/3/``, ``/data/local-files/?d=`` or an address before it."""
    path = unquote(image.rpartition("?d=")[2])
    return re.sub(r"^(\w+://.*|/data/upload/.*)/", "", path)


def filled(frame: pd.DataFrame, column: str) -> list[str]:
    """The texts of a column; a blank, an object or a list is refused."""
    for place, cell in zip(frame.index, frame[column], strict=True):
        if isinstance(cell, dict | list | bytes | np.ndarray):
            raise DataError(
                f"{place}: column {column!r} holds no text but {type(cell).__name__}; if these are "
                "the pictures themselves, save them as files, and write the names of these there"
            )
    texts = [text_of(cell) for cell in frame[column]]
    if "" in texts:
        raise DataError(f"{frame.index[texts.index('')]}: column {column!r} is blank")
    return texts


# ------------------------------------------------------------------------------------------ splits
def _splits(
    frame: pd.DataFrame, others: Sequence[str], columns: Columns
) -> tuple[tuple[str, ...], list[str] | None]:
    """The columns that tell the split, and the split of each row; none if no column tells it.

    It is the column ``split``, else columns such as ``is_valid``, else the only column that holds
    nothing but names of splits.
    """
    named = choose(frame, others, "split_column", columns.split, ("split",))
    among = [named] if named else [name for name in others if name not in (columns.names or ())]
    if flags := _flags(frame, among):
        return tuple(flags), _flagged(frame, flags)
    if named is None:
        likely = [name for name in others if text_of(frame[name].iloc[0]).lower() in SPLITS]
        values = {name: {text_of(cell).lower() for cell in frame[name]} for name in likely}
        like = [n for n, found in values.items() if len(found) > 1 and SPLITS.keys() >= found]
        if len(like) != 1:
            return (), None
        (named,) = like
    texts = filled(frame, named)
    for place, text in zip(frame.index, texts, strict=True):
        if text.lower() not in SPLITS:
            meant = "; call the column is_test, is_valid or is_train if it says True or False"
            raise DataError(
                f"{place}: split {text!r} is none of train, val and test"
                f"{meant if state_of(text) is not None else ''}"
            )
    return (named,), [SPLITS[text.lower()] for text in texts]


def _flags(frame: pd.DataFrame, among: Sequence[str]) -> dict[str, str]:
    """Column of True and False -> the split that it marks; ``train`` alone may be a label."""
    flags = {name: SPLITS[stem(name)] for name in among if stem(name) in SPLITS}
    marked = {name: split for name, split in flags.items() if "is" in name.lower()}
    flags = marked or (flags if len({*flags.values()}) > 1 else {})
    return flags if set().union(*(states_of(frame[name]) for name in flags)) <= {0, 1} else {}


def _flagged(frame: pd.DataFrame, flags: Mapping[str, str]) -> list[str]:
    """The split of each row: the one that a flag marks, else the first without a column."""
    rest = [split for split in ("train", "test", "val") if split not in flags.values()][:1]
    rows = zip(*(states_of(frame[name]) for name in flags), strict=True)
    found: list[str] = []
    for place, row in zip(frame.index, rows, strict=True):
        says = {s for s, is_set in zip(flags.values(), row, strict=True) if is_set} or {*rest}
        if len(says) != 1:
            raise DataError(
                f"{place}: {sum(row)} of the columns {', '.join(flags)} are 1; set one of them, to "
                "say the split, or, if they are labels, name all of those by the option label_names"
            )
        found += says
    return found


def _one_entry_a_picture(listing: Listing) -> Listing:
    """Join the rows of one picture and split, for tables with one row a label."""
    first: dict[tuple[str, str], int] = {}
    splits = listing.splits or [""] * len(listing.images)
    pairs = zip(listing.images, splits, strict=True)
    entry = [first.setdefault(pair, len(first)) for pair in pairs]
    if len(first) == len(entry):
        return listing
    targets_NC = np.zeros((len(first), len(listing.names)), np.int8)
    np.maximum.at(targets_NC, entry, listing.targets)
    groups: dict[int, str] = {}
    for i, (at, group) in enumerate(zip(entry, listing.groups or (), strict=False)):
        if group and groups.setdefault(at, group) != group:
            raise DataError(
                f"{listing.at(i)}: {listing.images[i]!r} is in group {group!r}, and in "
                f"{groups[at]!r} in a row above; write one group"
            )
    rows = np.unique(entry, return_index=True)[1].tolist()

    def kept(values: Sequence[Any] | None) -> Any:
        return None if values is None else [values[row] for row in rows]

    again = len(entry) - len(first)
    joined = f"{count(again, 'row')} of {len(entry):,} name a picture again: labels are joined"
    return replace(
        listing,
        images=kept(listing.images),
        targets=targets_NC,
        splits=kept(listing.splits),
        groups=listing.groups and [groups.get(at) for at in range(len(first))],
        places=kept(listing.places),
        facts={**listing.facts, "rows": joined},
        doubts=(*listing.doubts, joined) if again < len(first) / 5 else listing.doubts,
    )
