"""Checks of options, whose errors name the option, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from mlbench.types import PluginError

T = TypeVar("T")


def check_choice(option: str, value: T, known: Iterable[T]) -> T:
    """The value itself if it is among the known ones.

    Raises:
        PluginError: naming the option, the value and the known ones.
    """
    choices = list(known)
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise PluginError(f"unknown {option} {value!r}; known: {listed}")
    return value


def check_range(owner: str, interval: str, **options: float | None) -> None:
    """Refuse options outside an interval; None passes.

    Args:
        owner: plugin that has the options.
        interval: in mathematical notation, such as ``[1, inf)`` or ``(0, 1]``.
        options: name to value.

    Raises:
        PluginError: naming the option, its value and the interval.
    """
    low, high = map(float, interval[1:-1].split(","))
    for name, value in options.items():
        if value is None:
            continue
        above = low < value or (interval[0] == "[" and low == value)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below):
            raise PluginError(f"{owner}: {name}={value} must lie in {interval}")
