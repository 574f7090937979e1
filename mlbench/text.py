"""Numbers with their nouns."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``: nouns whose plural ends in s alone."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int, noun: str) -> str:
    """``row`` of 1, ``rows`` of any other number."""
    return noun if number == 1 else f"{noun}s"
