"""Checks of options, whose errors name the option, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import Tensor

from mlbench.types import PluginError

T = TypeVar("T")


def check_choice(option: str, value: T, known: Iterable[T]) -> T:
    """Return the value if it is among the known ones.

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


def check_pooling(owner: str, x_BDHW: Tensor, downsample: int, ceil_mode: bool) -> None:
    """Refuse a map that is smaller than the pooling window, unless ``ceil_mode`` is set.

    Raises:
        PluginError: naming the map, the options and what to give instead.
    """
    height, width = x_BDHW.shape[-2:]
    if not ceil_mode and min(height, width) < downsample:
        raise PluginError(
            f"{owner}: maps of {height} x {width} places are smaller than downsample={downsample}, "
            "and ceil_mode=false drops them; give a larger --image-size, or "
            "--set head_options.ceil_mode=true"
        )
