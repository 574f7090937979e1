"""Fixture files: a ``.json`` that describes, and beside it a ``.npz`` of what to expect."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.types import DataError
from mlbench_tools.weights.rules import Generator, Inputs, tolerance


@dataclass(frozen=True)
class Fixture:
    """One fixture: its fields as they stand in the file, and the arrays that it expects."""

    name: str
    fields: Mapping[str, Any]
    expected: Mapping[str, NDArray[Any]]
    generator: Generator
    tolerance: float

    @property
    def kind(self) -> str:
        """``head``, ``loss``, ``metrics`` or ``checkpoint``."""
        return str(self.fields.get("kind"))

    @property
    def method(self) -> str:
        """Name of the plugin."""
        return str(self.fields.get("method"))

    def inputs(self) -> Inputs:
        """Its inputs, made anew."""
        labels = int(self.fields.get("classes", 0))
        return Inputs(self.fields.get("inputs", {}), self.generator, labels)


def read_fixtures(file: Path) -> list[Fixture]:
    """All fixtures of a file.

    Raises:
        DataError: the file, or the .npz beside it, is missing or malformed.
    """
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            expected = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} is missing; a fixture file is a .json with a .npz of its name beside"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} and the .npz beside it cannot be read: {error}") from error
    fixtures = written.get("fixtures") if isinstance(written, dict) else None
    if not isinstance(fixtures, dict) or not isinstance(written.get("salt"), str):
        raise DataError(f"{file} must be a mapping with 'salt' and 'fixtures' by name")
    rules = written.get("rules", {})
    return [
        Fixture(
            name,
            fields,
            {
                key.removeprefix(f"{name}/"): value
                for key, value in expected.items()
                if key.startswith(f"{name}/")
            },
            Generator(written["salt"]),
            tolerance(rules, fields),
        )
        for name, fields in fixtures.items()
    ]
