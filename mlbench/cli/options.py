"""Options that a command passes on: ``NAME=VALUE``."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from mlbench.types import SuiteError


def named_values(texts: Iterable[str]) -> dict[str, Any]:
    """Names with values as Python writes them; what is no Python value is a text.

    Raises:
        SuiteError: a text without an equals sign.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SuiteError(f"--option {text!r} is not NAME=VALUE, as in --option lam=0.5")
        try:
            found[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            found[name.strip()] = value.strip()
    return found
