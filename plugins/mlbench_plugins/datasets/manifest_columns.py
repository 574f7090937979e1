"""From the columns of a table to images, labels, splits and groups."""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.manifest_listing import SPLITS, Listing, matrix
from mlbench_plugins.datasets.manifest_tables import Table

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
        labels: the column of label lists, or one column a label.
        separator: what parts the labels of a list; None takes ``;`` and ``|``.
        names: the labels in their order; None takes those found, sorted.
    """

    image: str | None = None
    labels: tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None


def from_table(table: Table, columns: Columns) -> Listing:
    """What a table says of its images.

    Raises:
        DataError: a column is missing or could be meant twice, or a cell makes no sense.
    """
    for name in columns.labels or ():
        _require(table, name, "label_columns")
    others = [name for name in table.columns if name not in (columns.labels or ())]
    image = _choose(table, others, "image_column", columns.image, IMAGE)
    if image is None:
        raise DataError(
            f"{table.file} has no column of pictures ({', '.join(IMAGE[:4])}); it has "
            f"{_some(others)}: name one by the option image_column"
        )
    split = _choose(table, others, "split_column", columns.split, SPLIT)
    group = _choose(table, others, "group_column", columns.group, GROUP)
    others = [name for name in others if name not in (image, split, group)]
    names, targets_NC = _labels(table, others, columns)
    listed = any(name.lower() in LABELS for name in others)
    return Listing(
        source=table.file,
        folders=(table.file.parent, table.file.parent / "images"),
        images=[_filled(table, image, row) for row in range(len(table.places))],
        names=names,
        targets=targets_NC,
        splits=None if split is None else _splits(table, split),
        groups=None if group is None else [_text(c) or None for c in table.columns[group]],
        places=table.places,
        unused=tuple(name for name in others if name not in names and name.lower() not in LABELS)
        if listed or columns.labels
        else (),
    )


def _choose(
    table: Table, among: Sequence[str], option: str, asked: str | None, usual: Sequence[str]
) -> str | None:
    if asked is not None:
        _require(table, asked, option)
        return asked
    hits = [name for name in among if name.lower() in usual]
    if len(hits) > 1:
        raise DataError(
            f"{table.file}: {' and '.join(map(repr, hits))} could both be meant; name one by the "
            f"option {option}"
        )
    return hits[0] if hits else None


def _require(table: Table, name: str, option: str) -> None:
    if name not in table.columns:
        near = difflib.get_close_matches(name, list(table.columns), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {_some(list(table.columns))}"
        raise DataError(f"{table.file} has no column {name!r}, which {option} names; {hint}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")


def _text(cell: Any) -> str:
    if cell is None or cell != cell:  # NaN is how Parquet says null
        return ""
    return str(cell).strip()


def _filled(table: Table, column: str, row: int) -> str:
    if text := _text(table.columns[column][row]):
        return text
    raise DataError(f"{table.file} {table.places[row]}: column {column!r} is blank")


def _splits(table: Table, column: str) -> list[str]:
    splits = []
    for row in range(len(table.places)):
        text = _filled(table, column, row)
        if text.lower() not in SPLITS:
            raise DataError(
                f"{table.file} {table.places[row]}: split {text!r} is none of train, val and test"
            )
        splits.append(SPLITS[text.lower()])
    return splits


# ------------------------------------------------------------------------------------------ labels
def _labels(
    table: Table, others: Sequence[str], columns: Columns
) -> tuple[tuple[str, ...], Targets]:
    asked = columns.labels
    if asked is None:
        listed = _choose(table, others, "label_columns", None, LABELS)
    else:
        listed = asked[0] if len(asked) == 1 and not _is_states(table.columns[asked[0]]) else None
    if listed is not None:
        return _from_lists(table, listed, columns)
    return _from_states(table, asked or others, columns, told=asked is not None)


def _is_states(cells: Sequence[Any]) -> bool:
    return all(_state(cell) is not None for cell in cells)


def _state(cell: Any) -> int | None:
    try:
        state = _STATES.get(cell)
        return _STATES.get(_text(cell)) if state is None else state
    except (TypeError, ValueError):  # a list
        return None


def _from_states(
    table: Table, named: Sequence[str], columns: Columns, told: bool
) -> tuple[tuple[str, ...], Targets]:
    """One column a label."""
    if not named:
        raise DataError(
            f"{table.file} has no labels: give it a column 'labels' or one column a label"
        )
    names = tuple(sorted(named))
    if columns.names is not None:
        for name in columns.names:
            _require(table, name, "label_names")
        if told and set(columns.names) != set(named):
            raise DataError(f"{table.file}: label_names and label_columns name different columns")
        names = columns.names
    targets_NC = np.empty((len(table.places), len(names)), np.int8)
    for column, name in enumerate(names):
        states = [_state(cell) for cell in table.columns[name]]
        if None in states:
            row = states.index(None)
            raise DataError(
                f"{table.file} {table.places[row]}: column {name!r} holds "
                f"{table.columns[name][row]!r}, which is none of 1, 0, -1 and blank; if it is no "
                "label, name the columns that are by the option label_columns"
            )
        targets_NC[:, column] = np.array(states, np.int8)
    return names, targets_NC


def _from_lists(table: Table, column: str, columns: Columns) -> tuple[tuple[str, ...], Targets]:
    """One column of label lists; a blank is an image without labels."""
    lists = [_parse(table, column, row, columns.separator) for row in range(len(table.places))]
    found = {label for labels in lists for label in labels}
    if columns.names is None:
        _refuse_suspicious(table, column, found, columns.separator)
        names = tuple(sorted(found))
        return names, matrix(lists, names)
    known = set(columns.names)
    for row, labels in enumerate(lists):
        if strange := sorted(labels - known):
            raise DataError(
                f"{table.file} {table.places[row]}: {strange[0]!r} is none of the labels that the "
                "option label_names lists; mend it or add it there"
            )
    return columns.names, matrix(lists, columns.names)


def _parse(table: Table, column: str, row: int, separator: str | None) -> set[str]:
    cell = table.columns[column][row]
    if isinstance(cell, str) and cell.lstrip().startswith("[") and separator is None:
        cell = _literal(table, row, cell.strip())
    if isinstance(cell, list | tuple):
        parts = [_text(part) for part in cell]
    else:
        parts = re.split("[;|]" if separator is None else re.escape(separator), _text(cell))
    return {part.strip() for part in parts if part.strip()}


def _literal(table: Table, row: int, text: str) -> Any:
    """A list as JSON writes it, or as Python prints it."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    raise DataError(f"{table.file} {table.places[row]}: {text!r} is no list of labels")


def _refuse_suspicious(table: Table, column: str, found: set[str], separator: str | None) -> None:
    if not found:
        raise DataError(f"{table.file}: column {column!r} holds no label at all")
    if all(_NUMBER.fullmatch(label) for label in found):
        some = ", ".join(sorted(found)[:5])
        raise DataError(
            f"{table.file}: column {column!r} holds numbers ({some}) where names of labels were "
            "expected. Write the names; if these are the names, list them in the option "
            "label_names; if a label has a column of 0 and 1, name such columns in label_columns"
        )
    comma = sorted(label for label in found if "," in label)
    if comma and separator is None:
        raise DataError(
            f"{table.file}: column {column!r} has a label with a comma in it, {comma[0]!r}. If "
            "commas part labels there, say so by the option separator: ','; if it is one label, "
            "list all labels in the option label_names"
        )
