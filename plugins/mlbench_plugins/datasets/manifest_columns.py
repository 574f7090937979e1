"""From the columns of a table to images, labels, splits and groups."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlbench.text import shorten, unknown
from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing, matrix
from mlbench_plugins.datasets.manifest_tables import ENCODING, TEXTS, read_table
from mlbench_plugins.datasets.photographs import read_text

if TYPE_CHECKING:
    import pandas as pd

TABLES = (*TEXTS, ".parquet")

IMAGE = ("image", "file", "path", "filename", "file_name", "image_path", "filepath")
LABELS = ("labels", "label", "tags", "tag")
SPLIT = ("split",)
GROUP = ("group",)

_STATES: dict[Any, int] = {
    **dict.fromkeys(("1", "1.0", "true", "True", "TRUE", 1), 1),
    **dict.fromkeys(("0", "0.0", "false", "False", "FALSE", 0), 0),
    **dict.fromkeys(("-1", "-1.0", "", None, -1), -1),
}
"""Cells of a column of one label; a blank is unknown. True equals 1 as a key."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


@dataclass(frozen=True)
class Columns:
    """Which columns mean what, where their names do not say it.

    Attributes:
        image, split, group: names of columns; None finds them by their usual names.
        labels: the column of label lists, or one column per label.
        separator: what separates the labels of a list; None takes ``;`` and ``|``.
        names: the labels in their order; None takes those found, sorted.
    """

    image: str | None = None
    labels: tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None


def from_table(file: Path, columns: Columns, content: Any = None) -> Listing:
    """What a table says about its images.

    Args:
        file: the table.
        columns: which columns mean what.
        content: of a .json, parsed.

    Raises:
        DataError: the table is malformed, a column is missing or ambiguous, or a cell makes no
            sense.
    """
    if file.suffix.lower() in TEXTS:
        content = read_text(file, ENCODING)
    try:
        return _listing(file, read_table(file, content), columns)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def _listing(file: Path, frame: pd.DataFrame, columns: Columns) -> Listing:
    for name in columns.labels or ():
        _require(frame, name, "label_columns")
    others = [name for name in frame.columns if name not in (columns.labels or ())]
    image = _choose(frame, others, "image_column", columns.image, IMAGE)
    if image is None:
        raise DataError(
            f"it has no column of pictures ({', '.join(IMAGE[:4])}), but {shorten(others)}: name "
            "one by the option image_column"
        )
    split = _choose(frame, others, "split_column", columns.split, SPLIT)
    group = _choose(frame, others, "group_column", columns.group, GROUP)
    others = [name for name in others if name not in (image, split, group)]
    names, targets_NC = _labels(frame, others, columns)
    listed = columns.labels or any(name.lower() in LABELS for name in others)
    return Listing(
        source=file,
        name=file.resolve().stem,
        folders=(file.parent, file.parent / "images"),
        images=_filled(frame, image),
        names=names,
        targets=targets_NC,
        splits=None if split is None else _splits(frame, split),
        groups=None if group is None else [_text(cell) or None for cell in frame[group]],
        places=list(frame.index),
        unused=tuple(name for name in others if name not in names and name.lower() not in LABELS)
        if listed
        else (),
    )


def _choose(
    frame: pd.DataFrame, among: Sequence[str], option: str, asked: str | None, usual: Sequence[str]
) -> str | None:
    """The column that an option names, else the one with a usual name, else None."""
    if asked is not None:
        _require(frame, asked, option)
        return asked
    hits = [name for name in among if name.lower() in usual]
    if len(hits) > 1:
        raise DataError(
            f"{' and '.join(map(repr, hits))} could both be meant; name one by the option {option}"
        )
    return hits[0] if hits else None


def _require(frame: pd.DataFrame, name: str, option: str) -> None:
    if name not in frame.columns:
        raise DataError(unknown(f"column {name!r} in the option {option}", name, frame.columns))


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _filled(frame: pd.DataFrame, column: str) -> list[str]:
    texts = [_text(cell) for cell in frame[column]]
    if "" in texts:
        raise DataError(f"{frame.index[texts.index('')]}: column {column!r} is blank")
    return texts


def _splits(frame: pd.DataFrame, column: str) -> list[str]:
    texts = _filled(frame, column)
    for place, text in zip(frame.index, texts, strict=True):
        if text.lower() not in SPLITS:
            raise DataError(f"{place}: split {text!r} is none of train, val and test")
    return [SPLITS[text.lower()] for text in texts]


# ------------------------------------------------------------------------------------------ labels
def _labels(
    frame: pd.DataFrame, others: Sequence[str], columns: Columns
) -> tuple[tuple[str, ...], Targets]:
    asked = columns.labels
    if asked is None:
        listed = _choose(frame, others, "label_columns", None, LABELS)
    else:
        states = (_state(cell) for cell in frame[asked[0]])
        listed = asked[0] if len(asked) == 1 and None in states else None
    if listed is not None:
        return _from_lists(frame, listed, columns)
    return _from_states(frame, asked or others, columns)


def _state(cell: Any) -> int | None:
    """1, 0 or -1; None for anything else."""
    if isinstance(cell, list | np.ndarray):
        return None
    state = _STATES.get(cell)
    return _STATES.get(_text(cell)) if state is None else state


def _from_states(
    frame: pd.DataFrame, named: Sequence[str], columns: Columns
) -> tuple[tuple[str, ...], Targets]:
    """One column per label."""
    if not named:
        raise DataError("it has no labels: give it a column 'labels' or one column per label")
    names = columns.names or tuple(sorted(named))
    for name in names:
        _require(frame, name, "label_names")
    if columns.labels is not None and set(names) != set(named):
        raise DataError("label_names and label_columns name different columns")
    targets_NC = np.empty((len(frame), len(names)), np.int8)
    for column, name in enumerate(names):
        states = [_state(cell) for cell in frame[name]]
        if None in states:
            row = states.index(None)
            raise DataError(
                f"{frame.index[row]}: column {name!r} contains {frame[name].iloc[row]!r}, which is "
                "none of 1, 0, -1 and blank; if it is no label, name the columns that are by the "
                "option label_columns"
            )
        targets_NC[:, column] = np.array(states, np.int8)
    return names, targets_NC


def _from_lists(
    frame: pd.DataFrame, column: str, columns: Columns
) -> tuple[tuple[str, ...], Targets]:
    """One column of label lists; a blank is an image without labels."""
    lists = [
        _parse(cell, place, columns.separator)
        for place, cell in zip(frame.index, frame[column], strict=True)
    ]
    found = set().union(*lists)
    if columns.names is None:
        _refuse_suspicious(column, found, columns.separator)
        names = tuple(sorted(found))
        return names, matrix(lists, names)
    for place, labels in zip(frame.index, lists, strict=True):
        if strange := sorted(labels.difference(columns.names)):
            raise DataError(
                f"{place}: {strange[0]!r} is none of the labels that the option label_names lists; "
                "correct it or add it there"
            )
    return columns.names, matrix(lists, columns.names)


def _parse(cell: Any, place: str, separator: str | None) -> set[str]:
    if isinstance(cell, str) and cell.lstrip().startswith("[") and separator is None:
        cell = _literal(cell.strip(), place)
    if isinstance(cell, list | tuple | np.ndarray):
        parts = [_text(part) for part in cell]
    else:
        parts = re.split("[;|]" if separator is None else re.escape(separator), _text(cell))
    return {part.strip() for part in parts if part.strip()}


def _literal(text: str, place: str) -> Any:
    """A list as JSON writes it, or as Python prints it."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    raise DataError(f"{place}: {text!r} is no list of labels")


def _refuse_suspicious(column: str, found: set[str], separator: str | None) -> None:
    if not found:
        raise DataError(f"column {column!r} contains no label at all")
    if all(_NUMBER.fullmatch(label) for label in found):
        some = shorten(sorted(found))
        raise DataError(
            f"column {column!r} contains numbers ({some}) where names of labels were expected. "
            "Write the names; if these are the names, list them in the option label_names; if a "
            "label has a column of 0 and 1, name such columns in label_columns"
        )
    comma = sorted(label for label in found if "," in label)
    if comma and separator is None:
        raise DataError(
            f"column {column!r} has a label with a comma in it, {comma[0]!r}. If commas separate "
            "labels there, set the option separator: ','; if it is one label, list all labels in "
            "the option label_names"
        )
