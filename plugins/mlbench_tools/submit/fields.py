"""Two values field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

ABSENT = "nothing"
"""What stands for a field that the other value does not have."""


def differing(first: BaseModel, second: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> both values, for every field that differs; a NaN equals a NaN.

    Entries of a list are numbered from 0; lists of different lengths are compared as a whole.
    """
    # As JSON, since a NaN is a text there.
    return _differing(*(json.loads(value.model_dump_json()) for value in (first, second)))


def _differing(first: Any, second: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return {path: (first, second)} if first != second else {}
    found: dict[str, tuple[Any, Any]] = {}
    for name in {**first, **second}:
        below = f"{path}.{name}" if path else str(name)
        found |= _differing(first.get(name, ABSENT), second.get(name, ABSENT), below)
    return found
