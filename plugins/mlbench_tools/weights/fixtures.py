"""Parity fixtures: a ``.json`` that describes inputs and weights, and a ``.npz`` of what to expect.

Inputs and weights are not stored: they are random numbers, seeded by name, and formulas of them.
"""

from __future__ import annotations

import ast
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.types import DataError

Array = NDArray[Any]
NO_DIAGONAL = ", diagonal set to 0"
"""Ends the description of a matrix with a zero diagonal."""

_FUNCTIONS = ("round", "tanh", "abs", "exp", "sqrt", "arange", "sign")
_METHODS = ("max", "min", "sum", "mean")
"""Functions of numpy, and methods of its arrays, that a formula may call."""
_SYNTAX = (
    *(ast.Expression, ast.Load, ast.Name, ast.Constant, ast.Attribute, ast.Call),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UnaryOp, ast.USub),
    *(ast.Compare, ast.Lt, ast.Gt),
)


# ------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class Fixture:
    """One fixture: its fields in the .json, and its arrays in the .npz."""

    name: str
    fields: Mapping[str, Any]
    expected: Mapping[str, Array]
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

    @property
    def weight_keys(self) -> dict[str, Sequence[int]]:
        """Names and shapes of the authors' weights; an expected array so named is the weight."""
        return dict(self.fields.get("keys", ()))

    @property
    def wanted(self) -> dict[str, Array]:
        """The arrays to compute."""
        return {k: v for k, v in self.expected.items() if k not in self.weight_keys}

    def inputs(self) -> Inputs:
        """Make the inputs."""
        labels = int(self.fields.get("classes", 0))
        return Inputs(self.fields.get("inputs", {}), self.generator, labels)


def read_fixtures(file: Path) -> list[Fixture]:
    """All fixtures of a file.

    Raises:
        DataError: the file, or the .npz next to it, is missing or malformed.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        with np.load(file.with_suffix(".npz"), allow_pickle=False) as arrays:
            expected = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged bytes
        raise DataError(
            f"{file} cannot be read: {error}; it must be a .json next to a .npz of the same name"
        ) from error
    if not isinstance(content, dict) or not {"salt", "fixtures"} <= content.keys():
        raise DataError(f"{file} must be a mapping with 'salt' and 'fixtures' by name")
    generator, rules = Generator(content["salt"]), content.get("rules", {})
    fixtures = []
    for name, fields in content["fixtures"].items():
        start = f"{name}/"
        arrays = {k.removeprefix(start): v for k, v in expected.items() if k.startswith(start)}
        fixtures.append(Fixture(name, fields, arrays, generator, tolerance(rules, fields)))
    return fixtures


# ------------------------------------------------------------------------------ numbers by rule
@dataclass(frozen=True)
class Generator:
    """Random numbers of a fixture file; the salt of the file and a name determine them."""

    salt: str

    def normal(self, name: str, shape: Sequence[int]) -> Array:
        """Standard normal numbers, float64."""
        return self._made(name).standard_normal(shape)

    def uniform(self, name: str, shape: Sequence[int]) -> Array:
        """Numbers in [0, 1), float64."""
        return self._made(name).random(shape)

    def weight(self, key: str, shape: Sequence[int]) -> Tensor:
        """The tensor of a state dict with this name and shape."""
        if not shape or key.endswith("num_batches_tracked"):
            return torch.zeros(tuple(shape), dtype=torch.float64)
        values = torch.from_numpy(self.normal(key, shape))
        if len(shape) > 1:
            return values / math.sqrt(values.numel() / shape[0])
        if key.endswith("running_var"):
            return 1 + (0.1 * values).abs()
        return 1 + 0.1 * values if key.endswith("weight") else 0.1 * values

    def _made(self, name: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32((self.salt + name).encode()))


class Inputs:
    """The inputs of a fixture, made when they are asked for.

    An input is ``[formula, name of its random numbers, shape]``, or a formula alone that refers to
    other inputs: by their name in the fixture, or by the last part of the name of their numbers.
    Formulas call the number of ``labels`` ``C``.
    """

    def __init__(self, written: Mapping[str, Any], generator: Generator, labels: int = 0) -> None:
        self.written, self._generator, self._labels = written, generator, labels
        self._made: dict[str, Array] = {}
        self._aliases = {name: name for name in written}
        for name, description in written.items():
            if not isinstance(description, str):
                self._aliases.setdefault(str(description[1]).rpartition(".")[2], name)

    def __contains__(self, name: str) -> bool:
        return name in self.written

    def __getitem__(self, name: str) -> Array:
        """The values of an input.

        Raises:
            DataError: its formula is not understood.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def tensor(self, name: str) -> Tensor:
        """The values of an input as a tensor."""
        return torch.from_numpy(np.array(self[name]))

    def _make(self, name: str) -> Array:
        match self.written[name]:
            case str(description):
                numbers, shape = "", ()
            case [str(description), str(numbers), [*shape]]:
                pass
            case other:
                raise DataError(f"input {name!r} is {other!r} instead of [formula, name, shape]")
        formula = description.removesuffix(NO_DIAGONAL)

        def value(variable: str) -> Any:
            if variable in ("normal", "uniform"):
                return getattr(self._generator, variable)(numbers, shape)
            return self._labels if variable == "C" else self[self._aliases[variable]]

        try:
            values = np.array(_evaluate(formula, value))
        except (SyntaxError, KeyError) as error:
            raise DataError(
                f"input {name!r}: {description!r} is not understood ({error}); known are normal, "
                f"uniform, other inputs, C, numbers, + - * / < >, {', '.join(_FUNCTIONS)}, and "
                f"at the end {NO_DIAGONAL!r}"
            ) from error
        if formula != description:
            np.fill_diagonal(values, 0)
        return values


def _evaluate(formula: str, value: Callable[[str], Any]) -> Any:
    """Evaluate a formula of numbers, variables, and the functions and methods above."""
    tree = ast.parse(formula.strip(), mode="eval")
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        allowed = isinstance(node, _SYNTAX)
        if isinstance(node, ast.Constant):
            allowed = isinstance(node.value, int | float)
        elif isinstance(node, ast.Attribute):
            allowed = node.attr in _METHODS
        elif isinstance(node, ast.Name):
            name = node.id
            names[name] = getattr(np, name) if name in _FUNCTIONS else value(name)
        if not allowed:
            raise SyntaxError(ast.unparse(node))
    # Every name of the formula is in `names`, which eval searches before the builtins.
    return eval(compile(tree, "<formula>", "eval"), names)


def tolerance(rules: Mapping[str, str], fixture: Mapping[str, Any]) -> float:
    """The largest relative error that a fixture allows; 1e-9 if the file does not say.

    This is its ``tolerance``, else the number in the text of the rules for its method (``1e-6 for
    query2label``), else the text's number for all (``1e-9 relative to ...``).
    """
    if "tolerance" in fixture:
        return float(fixture["tolerance"])
    text = rules.get("tolerance", "")
    for number, name in re.findall(r"(\d[\d.]*e-?\d+) for (\w+)", text):
        if name in (fixture.get("method"), fixture.get("kind")):
            return float(number)
    first = re.match(r"\s*(\d[\d.]*e-?\d+)", text)
    return float(first[1]) if first else 1e-9
