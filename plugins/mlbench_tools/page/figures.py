"""The learning curve of a run as coordinates; templates draw the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlbench.types import EpochLog

WIDTH, HEIGHT = 640, 220
RIGHT, TOP, BOTTOM = 12, 12, 36
"""Margins of the learning curve."""
DIGIT = 11.5
"""Width of a digit, at the font size of a phone."""


class Tick(NamedTuple):
    """A mark on an axis: its coordinate and its text."""

    at: float
    text: str


class EpochPoint(NamedTuple):
    """An epoch in the drawing, with the text of its tooltip."""

    x: float
    y: float
    title: str


class LearningCurve(NamedTuple):
    """Mean training loss over epochs; the loss axis is logarithmic.

    Attributes:
        left: x of the loss axis, far enough from the edge for its numbers.
    """

    points: tuple[EpochPoint, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    left: float
    right: float = WIDTH - RIGHT
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def path(self) -> str:
        """The line through the points."""
        return "M" + "L".join(f"{point.x:.1f} {point.y:.1f}" for point in self.points)


def learning_curve(epochs: Sequence[EpochLog]) -> LearningCurve | None:
    """The loss over the epochs; None if fewer than two have a positive, finite loss."""
    logs = [log for log in epochs if math.isfinite(log.loss) and log.loss > 0]
    if len(logs) < 2:
        return None
    low, high = (math.log10(f(log.loss for log in logs)) for f in (min, max))
    first, last = logs[0].epoch, logs[-1].epoch
    losses = [10 ** (low + (high - low) * i / 4) for i in range(5 if high > low else 1)]
    left = 10 + DIGIT * max(len(f"{loss:.3g}") for loss in losses)
    step = max(1, math.ceil((last - first) / 8))

    def x(epoch: float) -> float:
        return left + (epoch - first) / (last - first) * (WIDTH - left - RIGHT)

    def y(loss: float) -> float:
        part = (math.log10(loss) - low) / ((high - low) or 1)
        return TOP + (1 - part) * (HEIGHT - TOP - BOTTOM)

    return LearningCurve(
        points=tuple(EpochPoint(x(log.epoch), y(log.loss), _title(log)) for log in logs),
        across=tuple(Tick(x(epoch), str(epoch)) for epoch in range(first, last + 1, step)),
        up=tuple(Tick(y(loss), f"{loss:.3g}") for loss in losses),
        left=left,
    )


def _title(log: EpochLog) -> str:
    norm = "" if log.grad_norm is None else f", gradient norm {log.grad_norm:.3g}"
    return f"epoch {log.epoch}: loss {log.loss:.4g}, learning rate {log.lr:.3g}{norm}"
