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
LEGEND = (
    "Pareto front (no other row has as much mAP at less cost, or more at as much): G by GMACs, "
    "P by parameters, L by latency; in brackets where the intervals leave it open."
)


class Front(NamedTuple):
    """The Pareto front of a board for one cost.

    Attributes:
        cost: ``GMACs``, ``parameters`` or ``latency``.
        where: place of measurement of latencies; empty for other costs.
        values: cost of each row [N]; None if it was not measured.
        standings: standing of each row [N]; None if it has no cost.
    """

    cost: Literal["GMACs", "parameters", "latency"]
    where: str
    values: tuple[float | None, ...]
    standings: tuple[Standing | None, ...]


def fronts(rows: Sequence[Row]) -> list[Front]:
    """Return the fronts of a board for every cost that a row has; for latencies, one per place."""
    measured = {place for row in rows for place, _ in row.latency}
    found = [
        _front("GMACs", "", rows, [row.gmacs for row in rows]),
        _front("parameters", "", rows, [row.parameters for row in rows]),
    ]
    for place in sorted(measured):
        times = [dict(row.latency).get(place) for row in rows]
        found.append(_front("latency", place, rows, times))
    return [front for front in found if any(v is not None for v in front.values)]


def _front(
    cost: Literal["GMACs", "parameters", "latency"],
    where: str,
    rows: Sequence[Row],
    values: Sequence[float | None],
) -> Front:
    kept = [i for i, value in enumerate(values) if value is not None]
    found = standings(
        [v for v in values if v is not None],
        [rows[i].mAP for i in kept],
        [(rows[i].low, rows[i].high) for i in kept],
    )
    by_row = dict(zip(kept, found, strict=True))
    return Front(cost, where, tuple(values), tuple(by_row.get(i) for i in range(len(rows))))


def standings(
    costs: Sequence[float],
    scores: Sequence[float],
    intervals: Sequence[tuple[float, float]],
) -> list[Standing]:
    """Sort points into those on the Pareto front of low cost and high score, and those behind it.

    A point dominates another if it costs no more and scores no less, and is better in one of the
    two; equal points do not dominate each other. A dominated point may be on the front (``maybe``)
    if no point dominates it when its score is at its upper bound and all others are at their lower
    bounds. Intervals are treated as independent. As the test images are shared, differences are
    more certain than that, so ``maybe`` is conservative.

    Args:
        costs: [N], finite; lower is better.
        scores: [N], finite; higher is better.
        intervals: [N] of (low, high) with low <= score <= high.
    """
    cost_N, score_N = np.asarray(costs, np.float64), np.asarray(scores, np.float64)
    bounds_N2 = np.asarray(intervals, np.float64).reshape(-1, 2)
    on_front = ~_dominated(cost_N, score_N, score_N)
    possible = ~_dominated(cost_N, bounds_N2[:, 1], bounds_N2[:, 0])
    return [
        "front" if sure else "maybe" if might else "behind"
        for sure, might in zip(on_front, possible, strict=True)
    ]


def _dominated(
    cost_N: NDArray[np.float64], score_N: NDArray[np.float64], others_N: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return [N], True for points of ``score_N`` that another point of ``others_N`` dominates."""
    cheaper, better = cost_N[:, None] < cost_N, others_N[:, None] > score_N
    no_dearer, no_worse = cost_N[:, None] <= cost_N, others_N[:, None] >= score_N
    dominates_NN = no_dearer & no_worse & (cheaper | better)
    np.fill_diagonal(dominates_NN, False)
    return np.asarray(dominates_NN.any(axis=0))


def marks(rows: Sequence[Row]) -> list[str]:
    """Return a cell per row, such as ``G(P)L`` (see ``LEGEND``).

    Several places of measurement are numbered in alphabetical order: ``L1``, ``L2``.
    """
    found = fronts(rows)
    places = [front.where for front in found if front.cost == "latency"]
    cells: list[list[str]] = [[] for _ in rows]
    for front in found:
        letter = front.cost[0].upper()
        if front.cost == "latency" and len(places) > 1:
            letter += str(places.index(front.where) + 1)
        for cell, standing in zip(cells, front.standings, strict=True):
            if standing != "behind" and standing is not None:
                cell.append(letter if standing == "front" else f"({letter})")
    return ["".join(cell) for cell in cells]
