"""Numbers by rule: inputs and weights that a fixture file describes instead of holding them."""

from __future__ import annotations

import ast
import math
import operator
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.types import DataError

Array = NDArray[Any]
NO_DIAGONAL = ", diagonal set to 0"
"""Ends a description whose matrix has a zero diagonal."""

_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "round": np.round,
    "tanh": np.tanh,
    "abs": np.abs,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "arange": np.arange,
    "sign": np.sign,
}
_METHODS = ("max", "min", "sum", "mean")


@dataclass(frozen=True)
class Generator:
    """The random numbers of a fixture file: each name has its own, from the file's salt."""

    salt: str

    def normal(self, name: str, shape: Sequence[int]) -> Array:
        """Standard normal numbers, float64."""
        return self._made(name).standard_normal(shape)

    def uniform(self, name: str, shape: Sequence[int]) -> Array:
        """Numbers in [0, 1), float64."""
        return self._made(name).random(shape)

    def weight(self, key: str, shape: Sequence[int]) -> Tensor:
        """The tensor of a state dict, by its name and shape alone."""
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

    An input is ``[description, name of its numbers, shape]``, or a description alone that refers to
    others: by their name in the fixture, or by the last part of the name of their numbers.

    Attributes:
        written: the inputs as they stand in the file.
        generator: of the file.
        labels: what ``C`` stands for.
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
            DataError: its description is not understood.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def tensor(self, name: str) -> Tensor:
        """The same as a tensor."""
        return torch.from_numpy(np.array(self[name]))

    def _make(self, name: str) -> Array:
        written = self.written[name]
        match written:
            case str(description):
                numbers, shape = "", ()
            case [str(description), str(numbers), [*shape]]:
                pass
            case _:
                raise DataError(f"input {name!r} is {written!r}; [description, name, shape] is due")
        formula = description.removesuffix(NO_DIAGONAL)
        evaluation = _Evaluation(self, numbers, shape)
        try:
            values = np.array(evaluation(ast.parse(formula.strip(), mode="eval").body))
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
        """The input that a description calls so."""
        if name in self.written:
            return name
        for own, written in self.written.items():
            if not isinstance(written, str) and str(written[1]).rpartition(".")[2] == name:
                return own
        return None


class _UnknownError(Exception):
    """Something that a description must not hold."""


@dataclass
class _Evaluation:
    """A description's value; it can compute, and nothing else."""

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
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                if name in _FUNCTIONS:
                    return _FUNCTIONS[name](*(self(one) for one in arguments))
            case ast.Call(func=ast.Attribute(value=of, attr=name), args=arguments, keywords=[]):
                if name in _METHODS:
                    return getattr(np, name)(self(of), *(self(one) for one in arguments))
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

    Its own ``tolerance``, else what the text of the rules says for its method (``1e-6 for
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
