"""Text that can break neither a table nor a block of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())


def count(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``: nouns whose plural ends in s alone."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escaped(text: str) -> str:
    """Safe in a cell of a Markdown table."""
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def grid(header: Sequence[str], right: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table.

    Args:
        header: names of the columns.
        right: those that stand on the right.
        rows: of cells, as many as there are columns.
    """
    numbers = set(right)
    rule = ["---:" if name in numbers else "---" for name in header]
    return ["| " + " | ".join(map(escaped, row)) + " |" for row in (header, rule, *rows)]
