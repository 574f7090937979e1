"""Fixtures -> how far our numbers are from the expected ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlbench.types import MlbenchError
from mlbench_tools.weights.fixtures import Fixture
from mlbench_tools.weights.recomputed import of_loss, of_metrics
from mlbench_tools.weights.released import of_checkpoint, of_head

KINDS: dict[str, Callable[[Fixture], dict[str, Tensor]]] = {
    "head": of_head,
    "checkpoint": of_checkpoint,
    "loss": of_loss,
    "metrics": of_metrics,
}


@dataclass(frozen=True)
class Comparison:
    """One array: the largest error, absolute and relative to the largest expected number."""

    array: str
    absolute: float
    relative: float
    passed: bool


@dataclass(frozen=True)
class Result:
    """One fixture."""

    name: str
    method: str
    kind: str
    tolerance: float
    arrays: tuple[Comparison, ...] = ()
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Every array agrees, and there was one."""
        return self.error is None and bool(self.arrays) and all(a.passed for a in self.arrays)


def prove(fixture: Fixture) -> Result:
    """Compute what a fixture expects, and compare; trouble becomes the result's error."""
    result = Result(fixture.name, fixture.method, fixture.kind, fixture.tolerance)
    try:
        return _prove(fixture, result)
    except MlbenchError as error:
        return _failed(result, str(error))
    except Exception as error:  # a fixture that does not fit must not hide the others
        return _failed(result, f"{type(error).__name__}: {error}")


def _failed(result: Result, error: str) -> Result:
    return Result(result.name, result.method, result.kind, result.tolerance, error=error)


def _prove(fixture: Fixture, result: Result) -> Result:
    if fixture.kind not in KINDS:
        known = ", ".join(KINDS)
        return _failed(result, f"there is no kind {fixture.kind!r} of fixtures; known: {known}")
    given = {key for key, _ in fixture.fields.get("keys", ())}
    wanted = [array for array in fixture.expected if array not in given]
    found = KINDS[fixture.kind](fixture)
    if missing := [array for array in wanted if array not in found]:
        return _failed(result, f"{fixture.method} gives no {', '.join(missing)}")
    if not wanted:
        return _failed(result, "the .npz holds nothing to compare with")
    compared = tuple(
        _compare(array, found[array], fixture.expected[array], fixture.tolerance)
        for array in wanted
    )
    return Result(result.name, result.method, result.kind, result.tolerance, compared)


def _compare(
    array: str, found: Tensor, expected: NDArray[np.float64], tolerance: float
) -> Comparison:
    ours = found.detach().double().numpy()
    if ours.shape != expected.shape:
        raise MlbenchError(f"{array} is {list(ours.shape)}, but {list(expected.shape)} is expected")
    absolute = float(np.abs(ours - expected).max(initial=0))
    largest = float(np.abs(expected).max(initial=0))
    relative = absolute / largest if largest else absolute
    # A NaN compares as false, and so fails.
    return Comparison(array, absolute, relative, relative <= tolerance)
