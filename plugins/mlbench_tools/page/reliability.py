"""Whether a run's probabilities mean what they say, as a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from mlbench.metrics.measurement import Measurement
from mlbench.types import Value
from mlbench_tools.page.curves import Tick

WIDTH, HEIGHT = 360, 372
LEFT, RIGHT, TOP, BOTTOM = 46, 348, 20, 260
"""Edges of the square of probabilities."""
LOW, HIGH = 330, 282
"""Where bars of counts stand, and where the highest ends."""


class Reliability(Value):
    """Known entries (an image and a label) by predicted probability, in bins of equal width.

    Attributes:
        errors: name -> expected calibration error in percent: ``ECE``, ``ECE_pooled``.
        entries: how many a bin has, [bins].
        confidence: their mean probability in percent, [bins]; 0 in an empty bin.
        frequency: the fraction of them that is positive, in percent, [bins]; 0 in an empty bin.
    """

    errors: dict[str, float]
    entries: tuple[int, ...]
    confidence: tuple[float, ...]
    frequency: tuple[float, ...]


class Bin(NamedTuple):
    """A bin that has entries: what the table says of it, and where its point lies."""

    edges: str
    entries: int
    confidence: float
    frequency: float
    x: float
    y: float


class Diagram(NamedTuple):
    """A reliability diagram (Guo et al., ICML 2017, Figure 1), in units of its drawing.

    Attributes:
        bars: a path of one bar per bin, as high as the logarithm of its entries.
        most: entries of the highest bar.
    """

    errors: Mapping[str, float]
    bins: tuple[Bin, ...]
    bars: str
    most: int
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """The line through the points."""
        return "M" + "L".join(f"{b.x:.1f} {b.y:.1f}" for b in self.bins)

    @property
    def points(self) -> str:
        """A path of one line a point, of no length: round ends make it a dot."""
        return "".join(f"M{b.x:.1f} {b.y:.1f}h0" for b in self.bins)


def reliability(found: Measurement) -> Reliability:
    """What is kept of the protocol ``calibration``."""
    curves = found.curves
    return Reliability(
        errors=dict(found.values),
        entries=tuple(int(count) for count in curves["entries"]),
        confidence=tuple(round(float(share), 3) for share in curves["confidence"]),
        frequency=tuple(round(float(share), 3) for share in curves["frequency"]),
    )


def diagram(found: Reliability) -> Diagram:
    """The drawing of what was kept."""
    wide, most = 100 / len(found.entries), max(found.entries)
    each = enumerate(zip(found.entries, found.confidence, found.frequency, strict=True))
    bins, bars = [], []
    for i, (entries, confidence, frequency) in each:
        if not entries:
            continue
        edges = f"{i * wide:.0f} to {(i + 1) * wide:.0f}"
        bins.append(Bin(edges, entries, confidence, frequency, _x(confidence), _y(frequency)))
        start, end = _x(i * wide) + 1, _x((i + 1) * wide) - 1
        tall = (LOW - HIGH) * math.log1p(entries) / math.log1p(most)
        bars.append(f"M{start:.1f} {LOW}V{LOW - tall:.1f}H{end:.1f}V{LOW}Z")
    ticks = range(0, 101, 25)
    return Diagram(
        errors=found.errors,
        bins=tuple(bins),
        bars="".join(bars),
        most=most,
        across=tuple(Tick(_x(share), str(share)) for share in ticks),
        up=tuple(Tick(_y(share), str(share)) for share in ticks),
    )


def _x(share: float) -> float:
    return LEFT + share / 100 * (RIGHT - LEFT)


def _y(share: float) -> float:
    return BOTTOM - share / 100 * (BOTTOM - TOP)
