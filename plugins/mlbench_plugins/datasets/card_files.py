"""Reads the cards of the data sets from the YAML files in this folder."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from mlbench.types import DatasetCard


@functools.cache
def read_card(file: str, name: str | None = None) -> DatasetCard:
    """Read and check a data set's card.

    Args:
        file: name of the YAML file, without its ending.
        name: the entry in the file, if it describes several data sets.

    Raises:
        ValidationError: from pydantic; a field is unknown, missing or malformed.
    """
    content = _load(file)
    fields = content if name is None else content[name]
    return DatasetCard(**{**fields, "budget": _load("budgets")[fields["budget"]]})


@functools.cache
def _load(name: str) -> dict[str, Any]:
    text = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content
