"""Values as pairs of a name and a text, for tables of settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

NONE = "\N{EN DASH}"
"""Stands where there is no value."""


class Fact(NamedTuple):
    """A line of a table: a dotted name and its value as text."""

    name: str
    text: str


def facts(fields: Mapping[str, Any], prefix: str = "") -> list[Fact]:
    """Every value of nested fields; empty ones are left out, as they say nothing."""
    found: list[Fact] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found += facts(value, f"{prefix}{name}.")
        elif value is not None and value != () and value != []:
            found.append(Fact(f"{prefix}{name}", text(value)))
    return found


def text(value: Any) -> str:
    """A value as a reader would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(each, str | int | float) for each in value):
        return ", ".join(text(each) for each in value)
    return json.dumps(value, ensure_ascii=False, default=str)


def number(value: float | None, places: int = 2) -> str:
    """A number with its decimals, a dash where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.{places}f}"
