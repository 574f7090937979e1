"""Cells that list the labels of a picture, in the notations that tools write."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mlbench.text import shorten
from mlbench.types import DataError

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
SEVERAL = re.compile(r"[-+]?[\d.]+(?:[\s,]+[-+]?[\d.]+)+")
BETWEEN = "[;|\n\t]"
COMMAS = ",，、；"  # noqa: RUF001 - those of Chinese and Japanese
KEYS = ("choices", "classifications", "labels", "label", "tags", "tag", "name", "class", "value")
"""Keys of the labels in objects of Label Studio, FiftyOne, and tables made by hand."""

_PRINTED = re.compile(r"(?:\w+\.)*\w+\(\s*([\[{].*[\]}])(?:,\s*dtype=[^)]*)?\s*\)", re.DOTALL)
"""``array(['a', 'b'], dtype=object)``, ``frozenset({'a'})``."""


class _Cut(list[str]):
    """Names that were cut out of a text without the quotes of a list."""


def labels_in(
    cell: Any, place: str, separator: str | None, cut: set[str] | None = None
) -> list[str]:
    """The labels that a cell lists, in its order; a blank lists none.

    A cell is a list, or the text that JSON, Python or numpy print of one; a set in braces; an
    object with a list under one of ``KEYS``, or of label -> 1 or 0; or names with ``separator``
    between them.

    Args:
        cell: a value of a table.
        place: where the cell is, for errors.
        separator: what separates names; None takes ``;``, ``|``, tabs and new lines.
        cut: gets the labels that no list with quotes names.

    Raises:
        DataError: the cell has none of these notations.
    """
    if isinstance(cell, str):
        cell = _read(cell.strip(), place, separator)
    if isinstance(cell, Mapping):
        cell = _of_object(cell, place)
    if not isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        cell = [cell]
    found: list[str] = []
    for part in cell:
        if isinstance(part, Mapping):
            found += labels_in(part, place, separator, cut)
        elif isinstance(part, bool | list | tuple):
            raise _no_list(place, part)
        elif part is not None and part == part and str(part).strip():  # not NaN
            found.append(str(part).strip())
    if cut is not None and isinstance(cell, _Cut):
        cut.update(found)
    return found


def _no_list(place: str, what: object) -> DataError:
    return DataError(
        f"{place}: {what!r} is no list of labels; write names with ; between them, or a list as "
        'JSON writes it: ["cat", "dog"]'
    )


def _of_object(cell: Mapping[Any, Any], place: str) -> Any:
    key = next((key for key in KEYS if key in cell), None)
    if key is not None:
        return cell[key] if isinstance(cell[key], list) else _Cut([cell[key]])
    if all(value in (0, 1) for value in cell.values()):
        return [name for name, value in cell.items() if value]
    raise _no_list(place, dict(cell))


def _read(text: str, place: str, separator: str | None) -> Any:
    """The list or object that a text stands for, in brackets or not."""
    if re.fullmatch(r"(tuple|list|(frozen)?set)?\(\)", text):
        return []
    printed = _PRINTED.fullmatch(text)
    text = printed[1] if printed else text
    ends, quoted = text[:1] + text[-1:], "'" in text or '"' in text
    if ends not in ("[]", "{}") and not (ends == "()" and quoted):
        return _split(text, separator)
    # numpy prints no commas, and Python would join the texts.
    commas = re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", text)
    commas = re.sub(r"\bnan\b(?=\s*[,\]}])", "None", commas)
    for read in (json.loads, ast.literal_eval):
        try:
            return read(commas)
        except (ValueError, SyntaxError):
            continue
    inside = text[1:-1].strip()
    names = re.split("[,;|\n\t]" if separator is None else re.escape(separator), inside)
    if not quoted and ":" not in inside and (len(names) > 1 or " " not in inside):
        return _Cut(names)
    if SEVERAL.fullmatch(inside):
        return _split(inside, None)
    raise _no_list(place, text)


def _split(text: str, separator: str | None) -> list[str]:
    if separator is None and SEVERAL.fullmatch(text):
        return re.split(r"[\s,]+", text)
    names = re.split(BETWEEN if separator is None else re.escape(separator), text)
    quotes = (re.fullmatch(r"""\s*(['"])(.*)\1\s*""", name) for name in names)
    return _Cut(q[2] if q else name for q, name in zip(quotes, names, strict=True))


def vectors(lists: Sequence[list[str]]) -> np.ndarray | None:
    """Lists of 0 and 1, one number a label, as int8 [N, C]; None if they are anything else."""
    length = len(lists[0])
    states = {"0": 0, "0.": 0, "0.0": 0, "1": 1, "1.": 1, "1.0": 1}
    if length < 2 or any(len(row) != length or not states.keys() >= {*row} for row in lists):
        return None
    return np.array([[states[cell] for cell in row] for row in lists], np.int8)


# ---------------------------------------------------------------------------- doubts about names
def refuse_doubtful(
    column: str, lists: Sequence[Iterable[str]], separator: str | None, cut: Iterable[str]
) -> None:
    """Refuse what is more likely another notation than names of labels.

    Raises:
        DataError: there is no label; labels are numbers; those that were ``cut`` out of texts have
            brackets or commas; or nearly all labels of several words are made of words of others.
    """
    found = sorted(set().union(*lists))
    if not found:
        raise DataError(f"column {column!r} contains no label at all")
    if all(NUMBER.fullmatch(label) for label in found):
        raise DataError(
            f"column {column!r} contains numbers ({shorten(found)}) where names of labels were "
            "expected. Write the names; if these are the names, list them: --option "
            f"{shlex.quote('label_names=' + json.dumps(found))}; if a label has a column of 0 and "
            "1, name such columns in the option label_columns"
        )
    cut = sorted(cut)
    for label in cut:
        if re.search(r"^[\[{]|[\]}]$", label):
            raise DataError(
                f"column {column!r}: {label!r} is no name; a list needs both of its brackets and "
                'quotes, as in ["cat", "dog"]. Is the option separator right?'
            )
    if separator is not None:
        return
    for mark in COMMAS:
        comma = next((label for label in cut if mark in label), None)
        if comma is not None:
            raise DataError(
                f"column {column!r} has a label with a comma in it, {comma!r}. If commas separate "
                f"labels there: --option separator={mark}; if they belong to names: "
                "--option 'separator=;'"
            )
    if all(len({*row}) <= 1 for row in lists) and (between := _separator_in(found)):
        some = shorten([repr(label) for label in found if between in label], 3)
        option = shlex.quote(f"separator={between}")
        raise DataError(
            f"column {column!r}: labels such as {some} are made of the words of others. If "
            f"{between!r} separates labels: --option {option}; if these are names: "
            "--option 'separator=;'"
        )


def _separator_in(names: Sequence[str]) -> str | None:
    """The mark inside nearly all compound names, if their parts occur in others; else None."""
    for mark in (" ", "/", "+", "&", "_", "-", ":"):
        parts = [{*filter(None, map(str.strip, n.split(mark)))} for n in names if mark in n]
        times = Counter(part for some in parts for part in some)
        alone = {name for name in names if mark not in name}
        known = alone | {part for part, number in times.items() if number > 1}
        made = sum(some <= known and bool(some & alone) for some in parts)
        if made >= 2 and made >= 0.8 * len(parts):
            return mark
    return None
