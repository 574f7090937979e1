"""Pareto fronts of a board: the rows that no other row beats in mAP and cost.

Each cost has a front. Latencies have one for each place of measurement, because times on different
hardware are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.boards.rows import Row

Standing = Literal["front", "maybe", "behind"]
"""On the front by mAP; possibly on it, given the intervals; or behind it."""
Cost = Literal["GMACs", "parameters", "latency"]
LEGEND = (
    "Pareto: the costs by which no other row has as much mAP at less cost, or more at as much, by "
    "the measured values."
)


class Bounds(NamedTuple):
    """A cost or a score with its interval: low <= value <= high."""

    low: float
    value: float
    high: float


class Front(NamedTuple):
    """The Pareto front of a board for one cost.

    Attributes:
        where: place of measurement of latencies; empty for other costs.
        values: cost of each row [N]; None if it was not measured.
        standings: standing of each row [N]; None if it has no cost.
    """

    cost: Cost
    where: str
    values: tuple[float | None, ...]
    standings: tuple[Standing | None, ...]


def fronts(rows: Sequence[Row]) -> list[Front]:
    """Return the fronts of a board for every cost that a row has; for latencies, one per place."""
    measured = {speed.place for row in rows for speed in row.speeds}
    found = [
        _front("GMACs", "", rows, [_exact(row.gmacs) for row in rows]),
        _front("parameters", "", rows, [_exact(row.parameters) for row in rows]),
    ]
    for place in sorted(measured):
        speeds = [{speed.place: speed for speed in row.speeds}.get(place) for row in rows]
        times = [None if s is None else Bounds(s.low, s.ms, s.high) for s in speeds]
        found.append(_front("latency", place, rows, times))
    return [front for front in found if any(v is not None for v in front.values)]


def _front(cost: Cost, where: str, rows: Sequence[Row], costs: Sequence[Bounds | None]) -> Front:
    kept = {i: bounds for i, bounds in enumerate(costs) if bounds is not None}
    scores = [Bounds(rows[i].low, rows[i].mAP, rows[i].high) for i in kept]
    by_row = dict(zip(kept, standings(list(kept.values()), scores), strict=True))
    values = tuple(bounds and bounds.value for bounds in costs)
    return Front(cost, where, values, tuple(by_row.get(i) for i in range(len(rows))))


def _exact(value: float | None) -> Bounds | None:
    return None if value is None else Bounds(value, value, value)


def standings(costs: Sequence[Bounds], scores: Sequence[Bounds]) -> list[Standing]:
    """Sort points into those on the Pareto front of low cost and high score, and those behind it.

    A point dominates another if it costs no more and scores no less, and is better in one of the
    two; equal points do not dominate each other. A dominated point may be on the front (``maybe``)
    if no point dominates it when its score is at its upper bound, its cost at its lower bound, and
    all others are at their opposite bounds. Intervals are treated as independent. As the test
    images are shared, differences are more certain than that, so ``maybe`` is conservative.
    """
    cost_3N = np.asarray(costs, np.float64).reshape(-1, 3).T
    score_3N = np.asarray(scores, np.float64).reshape(-1, 3).T
    on_front = ~_dominated(cost_3N[1], score_3N[1], cost_3N[1], score_3N[1])
    possible = ~_dominated(cost_3N[0], score_3N[2], cost_3N[2], score_3N[0])
    return [
        "front" if sure else "maybe" if might else "behind"
        for sure, might in zip(on_front, possible, strict=True)
    ]


def _dominated(
    cost_N: NDArray[np.float64],
    score_N: NDArray[np.float64],
    cost_of_others_N: NDArray[np.float64],
    score_of_others_N: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return [N], True for points that another one dominates, given what all are as others."""
    cheaper, better = cost_of_others_N[:, None] < cost_N, score_of_others_N[:, None] > score_N
    no_dearer, no_worse = cost_of_others_N[:, None] <= cost_N, score_of_others_N[:, None] >= score_N
    dominates_NN = no_dearer & no_worse & (cheaper | better)
    np.fill_diagonal(dominates_NN, False)
    return np.asarray(dominates_NN.any(axis=0))


def marks(rows: Sequence[Row]) -> list[str]:
    """Return for each row the costs on whose front it is, such as ``GMACs, latency``.

    Several places of measurement are numbered in alphabetical order: ``latency (1)``.
    """
    found = fronts(rows)
    places = [front.where for front in found if front.cost == "latency"]
    cells: list[list[str]] = [[] for _ in rows]
    for front in found:
        name = str(front.cost).replace("parameters", "params")
        if front.cost == "latency" and len(places) > 1:
            name += f" ({places.index(front.where) + 1})"
        for cell, standing in zip(cells, front.standings, strict=True):
            if standing == "front":
                cell.append(name)
    return [", ".join(cell) for cell in cells]
