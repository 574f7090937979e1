"""Predictions in a .csv: cells -> numbers, each with its line and column."""

from __future__ import annotations

import csv
import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from mlbench.types import DataError, StoreError

COLUMNS = (
    "a .csv holds a line for each image, with the columns key, target:LABEL (1, 0; blank or -1 is "
    "unknown) and logit:LABEL or probability:LABEL for each label"
)
TARGETS: Mapping[str, str] = {"": "-1", "True": "1", "False": "0"}
"""What stands for a target besides a number; True and False are what pandas writes."""


@dataclass
class Table:
    """What a file holds.

    Attributes:
        kind: ``logit`` or ``probability``.
        names: of the labels [C].
        header: names of the columns.
        key, scored, known: places in a line of the key, of the scores [C] and of the targets [C].
        lines: the line in the file of each image [N]; the header is line 1.
        keys: of the images [N].
        scores, targets: C numbers for each image; unknown targets are -1.
    """

    kind: str
    names: tuple[str, ...]
    header: Sequence[str]
    key: int
    scored: tuple[int, ...]
    known: tuple[int, ...]
    lines: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    scores: list[array[float]] = field(default_factory=list)
    targets: list[array[float]] = field(default_factory=list)


def read(file: Path) -> Table:
    """Read a table of predictions.

    Raises:
        StoreError: there is no such file, or it is no table.
        DataError: naming the line and the column of what is wrong.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            if header is None:
                raise StoreError(f"{file}: cannot be read as a table (it is empty); {COLUMNS}")
            table = _layout(file, header)
            for cells in reader:
                if cells:
                    _add(table, cells, f"{file}: line {reader.line_num}")
                    table.lines.append(reader.line_num)
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{file}: cannot be read as a table ({error}); {COLUMNS}") from error
    return table


def _layout(file: Path, header: Sequence[str]) -> Table:
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"{file}: has column {twice[0]!r} twice; {COLUMNS}")
    kinds = [k for k in ("logit", "probability") if any(c.startswith(f"{k}:") for c in header)]
    if len(kinds) == 2:
        raise DataError(f"{file}: has logits and probabilities; give one of the two; {COLUMNS}")
    names = [c.removeprefix("target:") for c in header if c.startswith("target:")]
    if not kinds or not names or "key" not in header:
        raise DataError(f"{file}: has the columns {', '.join(header[:6])}, ...; {COLUMNS}")
    kind = kinds[0]
    scored = [c.removeprefix(f"{kind}:") for c in header if c.startswith(f"{kind}:")]
    if odd := sorted(set(names) ^ set(scored)):
        raise DataError(
            f"{file}: {', '.join(map(repr, odd[:3]))} has only one of target and {kind}; {COLUMNS}"
        )
    places = {column: place for place, column in enumerate(header)}
    scores, targets = (tuple(places[f"{w}:{n}"] for n in names) for w in (kind, "target"))
    return Table(kind, tuple(names), header, places["key"], scores, targets)


def _add(table: Table, cells: Sequence[str], line: str) -> None:
    fields, wanted = len(cells), len(table.header)
    if fields != wanted:
        how = "was it cut short?" if fields < wanted else "is a comma not quoted?"
        raise DataError(f"{line} has {fields} fields for the {wanted} columns of the header; {how}")
    table.keys.append(cells[table.key])
    scores = [cells[place] for place in table.scored]
    targets = [TARGETS.get(cells[place], cells[place]) for place in table.known]
    try:
        table.scores.append(array("d", map(float, scores)))
        table.targets.append(array("d", map(float, targets)))
    except ValueError:
        _refuse(table, [*scores, *targets], line)
    if not all(map(math.isfinite, table.scores[-1])):
        _refuse(table, scores, line)


def _refuse(table: Table, texts: Sequence[str], line: str) -> NoReturn:
    """Name the first cell of a line that is no number."""
    places = (*table.scored, *table.known)
    text, place = next(pair for pair in zip(texts, places, strict=False) if not _finite(pair[0]))
    wrong = f"holds {text!r}, which is no finite number" if text else "is blank"
    raise DataError(
        f"{line}, column {table.header[place]} {wrong}; give every label of an image a number, or "
        "leave the image out"
    )


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
