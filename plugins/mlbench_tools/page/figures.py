"""The drawings of a run's page as coordinates: its learning curve and its reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlbench.types import EpochLog
from mlbench_tools.page.derived import CalibrationBins

WIDTH, HEIGHT = 640, 220
RIGHT, TOP, BOTTOM = 12, 12, 36
"""Margins of the learning curve."""
DIGIT = 11.5
"""Width of a digit, at the font size of a phone."""

SQUARE_LEFT, SQUARE_RIGHT, SQUARE_TOP, SQUARE_BOTTOM = 46, 348, 20, 260
"""Edges of the reliability diagram's square of probabilities."""
BARS_BOTTOM, BARS_TOP = 330, 282
"""Where the bars of counts stand, and where the highest one ends."""


class Tick(NamedTuple):
    """A mark on an axis: its coordinate and its text."""

    at: float
    text: str


# --------------------------------------------------------------------------------- learning curve
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
        return _line([(point.x, point.y) for point in self.points])


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


# ----------------------------------------------------------------------------- reliability diagram
class BinPoint(NamedTuple):
    """A bin that has entries, with the coordinates of its point."""

    edges: str
    entries: int
    confidence: float
    frequency: float
    x: float
    y: float


class ReliabilityDiagram(NamedTuple):
    """A reliability diagram (Guo et al., ICML 2017, Figure 1).

    Attributes:
        errors: expected calibration errors in percent.
        bars: a path with one bar per bin, as high as the logarithm of its entries.
        most: entries of the highest bar.
    """

    errors: dict[str, float]
    bins: tuple[BinPoint, ...]
    bars: str
    most: int
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """The line through the points."""
        return _line([(point.x, point.y) for point in self.bins])

    @property
    def points(self) -> str:
        """A path with a line of no length per point; its round ends make it a dot."""
        return "".join(f"M{point.x:.1f} {point.y:.1f}h0" for point in self.bins)


def reliability_diagram(found: CalibrationBins) -> ReliabilityDiagram:
    """The drawing of a run's calibration."""
    wide, most = 100 / len(found.entries), max(found.entries)
    each = enumerate(zip(found.entries, found.confidence, found.frequency, strict=True))
    bins, bars = [], []
    for i, (entries, confidence, frequency) in each:
        if not entries:
            continue
        edges = f"{i * wide:.0f} to {(i + 1) * wide:.0f}"
        bins.append(BinPoint(edges, entries, confidence, frequency, _x(confidence), _y(frequency)))
        start, end = _x(i * wide) + 1, _x((i + 1) * wide) - 1
        tall = (BARS_BOTTOM - BARS_TOP) * math.log1p(entries) / math.log1p(most)
        bars.append(f"M{start:.1f} {BARS_BOTTOM}V{BARS_BOTTOM - tall:.1f}H{end:.1f}V{BARS_BOTTOM}Z")
    ticks = range(0, 101, 25)
    return ReliabilityDiagram(
        errors=found.errors,
        bins=tuple(bins),
        bars="".join(bars),
        most=most,
        across=tuple(Tick(_x(share), str(share)) for share in ticks),
        up=tuple(Tick(_y(share), str(share)) for share in ticks),
    )


def _x(share: float) -> float:
    return SQUARE_LEFT + share / 100 * (SQUARE_RIGHT - SQUARE_LEFT)


def _y(share: float) -> float:
    return SQUARE_BOTTOM - share / 100 * (SQUARE_BOTTOM - SQUARE_TOP)


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
