"""Errors of a run reach the process that started it as they were raised."""

import pickle

import pytest

from mlbench.contracts.outcome import ContractError
from mlbench.executors.forking import ChildDied, Death
from mlbench.types import BatchMemoryError, DivergedError, MlbenchError


def below(kind):
    """All classes of errors below this one, of those that are imported."""
    for one in kind.__subclasses__():
        yield one
        yield from below(one)


KINDS = [kind for kind in below(MlbenchError) if kind.__module__.startswith("mlbench.")]


ARGUMENTS = {
    DivergedError: (7, float("nan")),
    BatchMemoryError: ("a batch needs 9 MiB", True),
    ChildDied: (Death("exit", "ended with code 7"), ("phase", "data"), "its last words"),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_crosses_processes(kind):
    error = kind(*ARGUMENTS.get(kind, ("what, where and what to do",)))
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (str(back), repr(vars(back))) == (str(error), repr(vars(error)))


def test_all_of_them_are_looked_at():
    assert {DivergedError, ContractError} < set(KINDS)
    assert "became nan at step 7" in str(DivergedError(7, float("nan")))
