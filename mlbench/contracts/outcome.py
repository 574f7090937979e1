"""How a check reports what it found."""

from __future__ import annotations

from torch import Tensor

from mlbench.types import MlbenchError


class ContractError(MlbenchError):
    """A plugin breaks the contract of its kind; the message says how."""


class NotChecked(Exception):  # noqa: N818 - nothing is wrong
    """A check does not apply; the message says why."""


def ensure(condition: object, message: str) -> None:
    """Raise ``ContractError`` with this message unless the condition is true."""
    if not condition:
        raise ContractError(message)


def ensure_close(found: Tensor, expected: Tensor, message: str, tolerance: float = 1e-4) -> None:
    """Raise ``ContractError`` unless two tensors agree.

    Args:
        found: what the plugin gives.
        expected: what it should give.
        message: of the error; the difference is appended.
        tolerance: of the largest difference, relative to the largest expected value if above 1.
    """
    error = float((found - expected).detach().abs().max())
    limit = tolerance * max(1.0, float(expected.detach().abs().max()))
    ensure(error <= limit, f"{message}: by {error:.3g}")
