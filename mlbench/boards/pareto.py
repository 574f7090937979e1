"""Pareto fronts of a board: the rows that no other row beats in mAP and cost.

There is a front for each cost, and for latencies one for each place of measurement: times taken on
different hardware do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.boards.rows import Row

Standing = Literal["front", "maybe", "behind"]
"""On the front by mAP; possibly on it, given the intervals; or behind it in any case."""
LEGEND = (
    "Pareto front (no other row has as much mAP at less cost, or more at as much): G by GMACs, "
    "P by parameters, L by latency; in brackets where the intervals leave it open."
)


class Front(NamedTuple):
    """A front of a board by one cost.

    Attributes:
        cost: ``GMACs``, ``parameters`` or ``latency``.
        where: where the latencies were measured, empty for the other two.
        values: the cost of each row [N], None where it was not measured.
        standings: of each row [N], None where it has no cost.
    """

    cost: Literal["GMACs", "parameters", "latency"]
    where: str
    values: tuple[float | None, ...]
    standings: tuple[Standing | None, ...]


def fronts(rows: Sequence[Row]) -> list[Front]:
    """The fronts of a board by every cost that any of its rows has; for latencies one per place."""
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
    """Sort points into those on the front of low cost and high score, and those behind it.

    A point dominates another if it costs no more and scores no less, and is better in one of the
    two; equal points do not dominate each other. A dominated point may be on the front (``maybe``)
    if nothing dominates it when its score is its upper bound and all others' are their lower
    bounds. The intervals are treated as independent: with test images in common, differences are
    surer than that, so ``maybe`` errs on the side of doubt.

    Args:
        costs: [N], finite; less is better.
        scores: [N], finite; more is better.
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
    """[N] True where another point dominates; it scores ``others_N`` against ``score_N``."""
    cheaper, better = cost_N[:, None] < cost_N, others_N[:, None] > score_N
    no_dearer, no_worse = cost_N[:, None] <= cost_N, others_N[:, None] >= score_N
    dominates_NN = no_dearer & no_worse & (cheaper | better)
    np.fill_diagonal(dominates_NN, False)
    return np.asarray(dominates_NN.any(axis=0))


def marks(rows: Sequence[Row]) -> list[str]:
    """A cell per row: ``G(P)L`` by the legend; ``L1``, ``L2`` where there are several places,
    numbered in their alphabetical order.
    """  # noqa: D205
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
