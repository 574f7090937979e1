"""Which columns of a table hold labels, and what they say."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlbench.text import count, shorten, unknown
from mlbench.types import DataError, Targets
from mlbench_plugins.datasets.manifest_cells import labels_in, refuse_doubtful, vectors
from mlbench_plugins.datasets.manifest_listing import matrix

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("labels", "label", "tags", "tag")
LABELS_TOO = re.compile(
    r"choices?|class(es)?|label_?name|category|(label|tag|class|category)[ _-]?\d+", re.IGNORECASE
)
"""Columns of label names if none of ``LABELS`` is there, such as ``label1, label2``; they may also
hold 0 and 1 of one label."""
CONFIDENCE = ("confidence", "score", "probability")

ATTRIBUTES = re.compile(
    "occluded|truncated|difficult|crowd|groupof|depiction|inside|verified|reviewed|checked|fold"
)
"""Columns of 0 and 1 that tools write beside the labels; see ``stem``."""

BLANK = -2
_STATES = {"1": 1, "true": 1, "0": 0, "-0": 0, "false": 0, "-1": -1, "": BLANK}
"""Cell of a column of one label, in lower case and without decimals -> its state."""


@dataclass(frozen=True)
class Columns:
    """Which columns mean what, where their names do not say it.

    Attributes:
        image, split, group: names of columns; None finds them by their usual names.
        labels: the column of label lists, or one column per label.
        separator: what separates the labels of a list; None takes ``;`` and ``|``.
        names: the labels in their order; None takes those found, sorted.
        absent: ``blank`` or ``-1``, if it means absent, like 0, in a column of one label.
    """

    image: str | None = None
    labels: tuple[str, ...] | None = None
    split: str | None = None
    group: str | None = None
    separator: str | None = None
    names: tuple[str, ...] | None = None
    absent: str | None = None


@dataclass(frozen=True)
class LabelColumns:
    """Labels of a table.

    Attributes:
        names, targets: as in ``Listing``.
        columns: the columns that hold the labels.
        fact: how they were read, in words.
        doubts: what may be meant otherwise.
        lists: True if cells list labels, so that several rows may name one picture.
    """

    names: tuple[str, ...]
    targets: Targets
    columns: tuple[str, ...]
    fact: str
    doubts: tuple[str, ...] = ()
    lists: bool = False


def choose(
    frame: pd.DataFrame, among: Sequence[str], option: str, asked: str | None, *usual: Sequence[str]
) -> str | None:
    """The column that an option names, else the one with a usual name, else None."""
    if asked is not None:
        require(frame, asked, option)
        return asked
    hits = next(filter(None, ([n for n in among if n.lower() in names] for names in usual)), [])
    if len(hits) > 1:
        raise DataError(
            f"{' and '.join(map(repr, hits))} could both be meant; name one by the option {option}"
        )
    return hits[0] if hits else None


def require(frame: pd.DataFrame, name: str, option: str) -> None:
    """Raise DataError if the column that an option names is missing."""
    if name not in frame.columns:
        raise DataError(unknown(f"column {name!r} in the option {option}", name, frame.columns))


def stem(name: str) -> str:
    """A column's name in lower case, without ``is``, blanks and underscores."""
    return re.sub(r"[\W_]", "", name.lower()).removeprefix("is")


def text_of(cell: Any) -> str:
    """The text in a cell, without blanks around it."""
    return "" if cell is None else str(cell).strip()


# ------------------------------------------------------------------------------------------ labels
def read_labels(frame: pd.DataFrame, others: Sequence[str], columns: Columns) -> LabelColumns:
    """The labels of a table.

    Args:
        frame: the table.
        others: its columns without another meaning.
        columns: what the options say.

    Raises:
        DataError: the table has no labels, or a cell is none of the known notations.
    """
    if columns.labels is None:
        listed = choose(frame, others, "label_columns", None, LABELS)
        if listed is not None:
            return _from_lists(frame, [listed], others, columns)
    chosen = columns.labels or [name for name in others if LABELS_TOO.fullmatch(name)]
    states = [{*states_of(frame[name])} for name in chosen]
    if None in set().union(*states) and all(None in each or each <= {-1, BLANK} for each in states):
        return _from_lists(frame, chosen, others, columns)
    return _from_states(frame, columns.labels or others, columns)


def state_of(cell: Any) -> int | None:
    """1, 0, -1 or ``BLANK``; None for anything else."""
    return _STATES.get(re.sub(r"(?<=[01])\.0*$", "", text_of(cell).lower()))


def states_of(column: pd.Series[Any]) -> list[int | None]:
    """``state_of`` each cell, found once for all equal ones."""
    cells = column.tolist()
    try:
        known = {cell: state_of(cell) for cell in set(cells)}
    except TypeError:  # a list or an object has no hash
        return list(map(state_of, cells))
    return list(map(known.__getitem__, cells))


def _from_states(frame: pd.DataFrame, named: Sequence[str], columns: Columns) -> LabelColumns:
    """Read one column per label; leave out blank ones, unless an option names the labels."""
    states = {name: states_of(frame[name]) for name in named}
    if columns.labels is None and columns.names is None:
        named = [name for name in named if {*states[name]} != {BLANK}]
    if not named:
        raise DataError("it has no labels: give it a column 'labels' or one column per label")
    names = columns.names or tuple(sorted(named))
    for name in names:
        require(frame, name, "label_names")
    if columns.labels is not None and set(names) != set(named):
        raise DataError("label_names and label_columns name different columns")
    for name in names:
        if None in states[name]:
            row = states[name].index(None)
            rest = [each for each in names if None not in states[each]]
            raise DataError(
                f"{frame.index[row]}: column {name!r} contains {frame[name].iloc[row]!r}, which is "
                "none of 1, 0, -1 and blank; write 1 (present) or 0 (absent), or, "
                f"{_leave_out(rest, 'if it is no label')}"
            )
    states_NC = np.array([states[name] for name in names], np.int8).T
    blanks_NC, minus_NC = states_NC == BLANK, states_NC == -1
    targets_NC = np.maximum(states_NC, -1)
    if columns.absent is not None:
        targets_NC[blanks_NC if columns.absent == "blank" else minus_NC] = 0
    doubts = tuple(_unknown_or_absent(targets_NC, names, blanks_NC, minus_NC))
    odd = [name for name in names if ATTRIBUTES.fullmatch(stem(name))]
    if odd and columns.labels is None and columns.names is None:
        rest = [name for name in names if name not in odd]
        doubts += (f"columns taken as labels: {shorten(odd)}; {_leave_out(rest, 'if not meant')}",)
    fact = f"{count(len(names), 'column')}, one a label: {shorten(names)}"
    return LabelColumns(names, targets_NC, tuple(names), fact, doubts)


def _leave_out(rest: Sequence[str], when: str) -> str:
    """The advice to name only the other columns by the option label_columns."""
    if not rest:
        return f"{when}, name the columns that are by the option label_columns"
    listed = json.dumps(list(rest), ensure_ascii=False)
    return f"{when}: --option {shlex.quote('label_columns=' + listed)}"


def _unknown_or_absent(
    targets_NC: Targets, names: Sequence[str], blanks_NC: np.ndarray, minus_NC: np.ndarray
) -> Iterable[str]:
    """Refuse columns without a single 0; warn of some without one, and of two words for unknown."""
    unknown_NC = targets_NC < 0
    word = "blank" if (blanks_NC & unknown_NC).any() else "-1"
    remedy = f"if {word} stands for absent: --option absent={word}"
    if unknown_NC.any() and not (targets_NC == 0).any():
        raise DataError(
            f"nowhere 0 (absent) in {count(len(names), 'column')} of labels, and {word} is read as "
            "unknown, so that every label would be present wherever it is known; write 0 (absent) "
            f"instead, or, {remedy}"
        )
    never = [
        name
        for c, name in enumerate(names)
        if unknown_NC[:, c].any() and not (targets_NC[:, c] == 0).any()
    ]
    if never:
        yield f"columns without a 0 (absent), where {word} is unknown: {shorten(never)}; {remedy}"
    elif (blanks_NC & unknown_NC).any() and (minus_NC & unknown_NC).any():
        yield f"blank and -1 are both read as unknown; {remedy}"


def _from_lists(
    frame: pd.DataFrame, chosen: Sequence[str], others: Sequence[str], columns: Columns
) -> LabelColumns:
    """Read columns of label lists; a blank is an image without labels."""
    lists: list[list[str]] = [[] for _ in range(len(frame))]
    cut: set[str] = set()
    for name in chosen:
        for row, (place, cell) in enumerate(zip(frame.index, frame[name], strict=True)):
            lists[row] += labels_in(cell, place, columns.separator, cut)
    fact = f"lists in column {' and '.join(map(repr, chosen))}"
    used = tuple(chosen)
    names, states_NC = columns.names, vectors(lists)
    if states_NC is not None and not {"0", "1"}.issubset(names or ()):
        names = _vector_names(names, states_NC.shape[1])
        return LabelColumns(names, states_NC, used, f"0 and 1 {fact}")
    if names is None:
        refuse_doubtful(chosen[0], lists, columns.separator, cut)
        names = tuple(sorted(set().union(*lists)))
    for place, labels in zip(frame.index, lists, strict=True):
        if strange := sorted(set(labels).difference(names)):
            raise DataError(
                f"{place}: {strange[0]!r} is none of the labels that the option label_names lists; "
                "correct it or add it there"
            )
    sure = choose(frame, others, "", None, CONFIDENCE)
    # If a cell has several labels, the confidence may be that of the picture.
    chances = _chances(frame[sure]) if sure and all(len(row) < 2 for row in lists) else []
    doubts: tuple[str, ...] = ()
    if sure and chances:
        used += (sure,)
        fact += f", absent where {sure!r} is below 0.5"
        lists = [row if p >= 0.5 else [] for row, p in zip(lists, chances, strict=True)]
        if between := sum(0 < p < 1 for p in chances):
            doubts = (f"{count(between, 'label')} with a {sure} below 1: present from 0.5 on",)
    return LabelColumns(names, matrix(lists, names), used, fact, doubts, lists=True)


def refuse_states(frame: pd.DataFrame, unused: Iterable[str], chosen: Sequence[str]) -> None:
    """Refuse a column that may say whether the label of its row is present, if no other does."""
    for name in unused if chosen[-1].lower() not in CONFIDENCE else ():
        if {*states_of(frame[name])} == {0, 1} and not ATTRIBUTES.fullmatch(stem(name)):
            raise DataError(
                f"column {name!r} holds 0 and 1, and several rows name one picture. If 0 says that "
                "the label of its row is absent, write one label a row and call the column "
                f"'confidence'; {_leave_out(chosen, 'if it says something else')}"
            )


def _chances(cells: Iterable[Any]) -> list[float]:
    """Numbers from 0 to 1; none if a cell is anything else."""
    try:
        found = [float(cell) for cell in cells]
    except (TypeError, ValueError):
        return []
    return found if all(0 <= chance <= 1 for chance in found) else []


def _vector_names(names: tuple[str, ...] | None, length: int) -> tuple[str, ...]:
    if names is not None and len(names) == length:
        return names
    made = json.dumps([f"label {i}" for i in range(length)])
    raise DataError(
        f"its cells hold {length} numbers, 0 or 1, for {length} labels. Name them in their order: "
        f"--option {shlex.quote('label_names=' + made)}"
    )
