"""Pareto fronts of a board: the rows that no other row beats in mAP and cost.

Each cost has a front. Latencies have one for each place of measurement, because times on different
hardware are not comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from mlbench.boards.rows import Row

Cost = Literal["GMACs", "parameters", "latency"]
LEGEND = (
    "Pareto: the costs for which no other row has at least this mAP at a lower cost, or a higher "
    "mAP at the same cost."
)


class Front(NamedTuple):
    """The Pareto front of a board for one cost.

    Attributes:
        where: place of measurement of latencies; empty for other costs.
        values: cost of each row [N]; None if it was not measured.
        members: whether each row is on the front [N]; False if it has no cost.
    """

    cost: Cost
    where: str
    values: tuple[float | None, ...]
    members: tuple[bool, ...]


def fronts(rows: Sequence[Row]) -> list[Front]:
    """Return the fronts of a board for every cost that a row has; for latencies, one per place."""
    scores = [row.mAP for row in rows]
    costs: dict[tuple[Cost, str], list[float | None]] = {
        ("GMACs", ""): [row.gmacs for row in rows],
        ("parameters", ""): [row.parameters for row in rows],
    }
    for place in sorted({speed.place for row in rows for speed in row.speeds}):
        speeds = [{speed.place: speed for speed in row.speeds}.get(place) for row in rows]
        costs["latency", place] = [None if speed is None else speed.ms for speed in speeds]
    return [
        Front(*cost, tuple(values), tuple(undominated(values, scores)))
        for cost, values in costs.items()
        if any(value is not None for value in values)
    ]


def undominated(costs: Sequence[float | None], scores: Sequence[float]) -> list[bool]:
    """Return which points are on the Pareto front of low cost and high score.

    A point dominates another if it costs no more and scores no less, and is better in one of the
    two; equal points do not dominate each other. One without a cost is not on the front.
    """
    cost_N, score_N = np.array(costs, np.float64), np.array(scores, np.float64)  # None is a NaN
    no_worse_NN = (cost_N[:, None] <= cost_N) & (score_N[:, None] >= score_N)
    better_NN = (cost_N[:, None] < cost_N) | (score_N[:, None] > score_N)
    dominated_N = (no_worse_NN & better_NN).any(axis=0)
    return [bool(one) for one in ~dominated_N & ~np.isnan(cost_N)]


def marks(rows: Sequence[Row]) -> list[str]:
    """Return for each row the names of the fronts that contain it, such as ``GMACs, latency``.

    Several places of measurement are numbered in alphabetical order: ``latency (1)``.
    """
    found = fronts(rows)
    places = [front.where for front in found if front.where]

    def name(front: Front) -> str:
        number = f" ({places.index(front.where) + 1})" if front.where and places[1:] else ""
        return front.cost.replace("parameters", "params") + number

    cells = ([name(front) for front in found if front.members[i]] for i in range(len(rows)))
    return list(map(", ".join, cells))
