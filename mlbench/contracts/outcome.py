"""How a check says what it found."""

from __future__ import annotations

from mlbench.types import MlbenchError


class ContractError(MlbenchError):
    """A plugin does not do what its kind must do; the text says what."""


class NotChecked(Exception):  # noqa: N818 - nothing is wrong
    """The check has nothing to go on; the text says why."""


def ensure(holds: object, what: str) -> None:
    """Raise ``ContractError`` with this text unless it holds."""
    if not holds:
        raise ContractError(what)
