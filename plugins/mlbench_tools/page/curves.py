"""The learning curve of a run as points of an SVG drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlbench.types import EpochLog

WIDTH, HEIGHT = 640, 220
RIGHT, TOP, BOTTOM = 12, 12, 36
LETTER = 11.5
"""Width of a digit in units of the drawing, at the size that a phone draws it."""


class Tick(NamedTuple):
    """A mark on an axis: where in the drawing, and what stands there."""

    at: float
    text: str


class Point(NamedTuple):
    """An epoch in the drawing, and what its tooltip says."""

    x: float
    y: float
    title: str


class Curve(NamedTuple):
    """Mean training loss over epochs, in units of the drawing; the loss axis is logarithmic.

    Attributes:
        left: where the loss axis stands, far enough in for its numbers.
    """

    points: tuple[Point, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    left: float
    right: float = WIDTH - RIGHT
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def path(self) -> str:
        """The line through the points."""
        return "M" + "L".join(f"{p.x:.1f} {p.y:.1f}" for p in self.points)


def curve(epochs: Sequence[EpochLog]) -> Curve | None:
    """The loss over the epochs, None where fewer than two have a positive one."""
    logs = [log for log in epochs if math.isfinite(log.loss) and log.loss > 0]
    if len(logs) < 2:
        return None
    low, high = (math.log10(f(log.loss for log in logs)) for f in (min, max))
    first, last = logs[0].epoch, logs[-1].epoch
    losses = [(10**value, f"{10**value:.3g}") for value in _between(low, high)]
    left = 10 + LETTER * max(len(text) for _, text in losses)

    def x(epoch: float) -> float:
        return left + (epoch - first) / (last - first) * (WIDTH - left - RIGHT)

    def y(loss: float) -> float:
        part = (math.log10(loss) - low) / ((high - low) or 1)
        return TOP + (1 - part) * (HEIGHT - TOP - BOTTOM)

    return Curve(
        points=tuple(Point(x(log.epoch), y(log.loss), _title(log)) for log in logs),
        across=tuple(Tick(x(e), str(e)) for e in _epochs(first, last)),
        up=tuple(Tick(y(loss), text) for loss, text in losses),
        left=left,
    )


def _title(log: EpochLog) -> str:
    norm = "" if log.grad_norm is None else f", gradient norm {log.grad_norm:.3g}"
    return f"epoch {log.epoch}: loss {log.loss:.4g}, learning rate {log.lr:.3g}{norm}"


def _epochs(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 8))
    return list(range(first, last + 1, step))


def _between(low: float, high: float) -> list[float]:
    return [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
