"""Parity fixtures: a ``.json`` that describes inputs and weights, and a ``.npz`` of what to expect.

Inputs and weights are not stored. They are random numbers by name, and formulas of these.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
}
_FUNCTIONS = ("round", "tanh", "abs", "exp", "sqrt", "arange", "sign")
_METHODS = ("max", "min", "sum", "mean")
"""Functions of numpy, and methods of its arrays, that a formula may call."""


# ------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class Fixture:
    """One fixture: its fields in the .json, and its arrays in the .npz."""

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

    @property
    def weight_keys(self) -> dict[str, Sequence[int]]:
        """Names and shapes of the authors' weights; an expected array of such a name is given."""
        return dict(self.fields.get("keys", ()))

    def inputs(self) -> Inputs:
        """The inputs, made anew."""
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
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename} is missing; a fixture file is a .json with a .npz of the same name"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} and the .npz next to it cannot be read: {error}") from error
    if not isinstance(content, dict) or not {"salt", "fixtures"} <= content.keys():
        raise DataError(f"{file} must be a mapping with 'salt' and 'fixtures' by name")
    generator, rules = Generator(content["salt"]), content.get("rules", {})
    arrays_of: dict[str, dict[str, Array]] = defaultdict(dict)
    for key, array in expected.items():
        name, _, part = key.partition("/")
        arrays_of[name][part] = array
    return [
        Fixture(name, fields, arrays_of[name], generator, tolerance(rules, fields))
        for name, fields in content["fixtures"].items()
    ]


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


@dataclass
class Inputs:
    """The inputs of a fixture, made when they are asked for.

    An input is ``[formula, name of its random numbers, shape]``, or a formula alone that refers to
    other inputs: by their name in the fixture, or by the last part of the name of their numbers.

    Attributes:
        written: the inputs in the file.
        generator: of the file.
        labels: the value of ``C`` in formulas.
    """

    written: Mapping[str, Any]
    generator: Generator
    labels: int = 0
    _made: dict[str, Array] = field(default_factory=dict)

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
        evaluate = _Evaluation(self, numbers, shape)
        try:
            values = np.array(evaluate(ast.parse(formula.strip(), mode="eval").body))
        except (SyntaxError, _UnknownError) as error:
            raise DataError(
                f"input {name!r}: {description!r} is not understood ({error}); known are normal, "
                f"uniform, other inputs, C, numbers, + - * / < >, {', '.join(_FUNCTIONS)}, and "
                f"at the end {NO_DIAGONAL!r}"
            ) from error
        if formula != description:
            np.fill_diagonal(values, 0)
        return values

    def find(self, name: str) -> str | None:
        """The input that a formula refers to by this name."""
        if name in self.written:
            return name
        for key, written in self.written.items():
            if not isinstance(written, str) and str(written[1]).rpartition(".")[2] == name:
                return key
        return None


class _UnknownError(Exception):
    """A formula has a part that is not allowed."""


@dataclass
class _Evaluation:
    """Evaluates a formula; it can only compute."""

    inputs: Inputs
    numbers: str
    shape: Sequence[int]

    def __call__(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() | float() as value):
                return value
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self(left), self(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self(left), self(right))
            case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in _FUNCTIONS:
                return getattr(np, name)(*map(self, given))
            case ast.Call(func=ast.Attribute(value=of, attr=name), args=given, keywords=[]):
                if name in _METHODS:
                    return getattr(np, name)(self(of), *map(self, given))
        raise _UnknownError(ast.unparse(node))

    def _name(self, name: str) -> Any:
        if name == "C":
            return self.inputs.labels
        if name in ("normal", "uniform"):
            return getattr(self.inputs.generator, name)(self.numbers, self.shape)
        found = self.inputs.find(name)
        if found is None:
            raise _UnknownError(name)
        return self.inputs[found]


def tolerance(rules: Mapping[str, str], fixture: Mapping[str, Any], default: float = 1e-9) -> float:
    """The largest relative error that a fixture allows.

    This is its ``tolerance``, else what the text of the rules says for its method (``1e-6 for
    query2label``), else what that text says for all (``1e-9 relative to ...``).
    """
    if "tolerance" in fixture:
        return float(fixture["tolerance"])
    text = rules.get("tolerance", "")
    for number, name in re.findall(r"(\d[\d.]*e-?\d+) for (\w+)", text):
        if name in (fixture.get("method"), fixture.get("kind")):
            return float(number)
    first = re.match(r"\s*(\d[\d.]*e-?\d+)", text)
    return float(first[1]) if first else default
