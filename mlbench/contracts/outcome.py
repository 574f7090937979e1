"""The errors and assertions by which a check reports what it found."""

from __future__ import annotations

from torch import Tensor

from mlbench.types import MlbenchError


class ContractError(MlbenchError):
    """A plugin breaks the contract of its kind, perhaps by one ``attribute`` alone."""

    def __init__(self, message: str, attribute: str = "") -> None:
        super().__init__(message)
        self.attribute = attribute.partition(".")[0]


class NotFinite(ContractError):  # noqa: N818
    """Values are NaN or infinite."""


class NotChecked(Exception):  # noqa: N818 - nothing is wrong
    """A check does not apply; the message says why."""


class Remarked(Exception):  # noqa: N818 - nothing is wrong
    """Nothing is wrong, but the author should know something; the message says what."""


def ensure(condition: object, message: str, attribute: str = "") -> None:
    """Raise ``ContractError`` with this message unless the condition is true."""
    if not condition:
        raise ContractError(message, attribute)


def ensure_finite(values: Tensor, what: str) -> None:
    """Raise ``NotFinite`` unless all values are finite; do nothing on ``meta``, without values."""
    if not values.is_meta and not values.isfinite().all():
        kind = "NaN" if values.isnan().any() else "infinite values"
        raise NotFinite(f"{kind} in {what}")


def ensure_close(found: Tensor, expected: Tensor, message: str, tolerance: float = 1e-4) -> None:
    """Raise ``ContractError``, which names the largest difference, unless two tensors agree.

    The tolerance is relative to the largest expected value if that is above 1.
    """
    error = float((found - expected).detach().abs().max())
    limit = tolerance * max(1.0, float(expected.detach().abs().max()))
    ensure(error <= limit, f"{message}: by {error:.3g}")
