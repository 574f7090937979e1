"""Words of messages: numbers with nouns, short lists, near names, validation errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def count(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``; the noun's plural must end in s."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int, noun: str) -> str:
    """``row`` for 1, ``rows`` for any other number."""
    return noun if number == 1 else f"{noun}s"


def shorten(items: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """``a, b, c, d, e and 3 more``: at most ``limit`` items, then the number of the rest."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(map(str, items[:limit])) + more


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A message for an unknown name, with the nearest known names, or all of them if none is near.

    Args:
        what: the name and what it should have been, e.g. ``"option 'yaer' of coco"``.
        name: the name alone.
        known: the names to choose from.
    """
    names = sorted(known)
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.6)
    near = [folded[each] for each in close]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"unknown {what}; {hint}"


def first_error(error: ValidationError, of: str = "the file") -> str:
    """The first validation error in one line: ``field = value: what is wrong``.

    Args:
        error: from pydantic.
        of: what to name where the error is of no single field.
    """
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or of
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(first["input"], dict | list) else f" = {first['input']!r}"
    return f"{where}{shown}: {message}"
