"""A new seed whose mAP is far from that of its row's other seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from mlbench.types import RunRecord
from mlbench_tools.submit.remarks import Remark, few, warning

DEVIATIONS = 4.0
"""Standard deviations between seeds that are far: our committed runs are within 2.8 of the others
of their row."""
FREEDOM = 10
"""Degrees of freedom from which on a pooled standard deviation is gone by."""
POINTS = 5.0
"""Points of mAP that are far where it is not."""


def seeds(record: RunRecord, others: Iterable[RunRecord]) -> Iterator[Remark]:
    """Whether a run's score is one that its other seeds make likely.

    The distance from their mean is held against ``DEVIATIONS`` times sd * sqrt(1 + 1 / n), with n
    other seeds and the standard deviation between seeds pooled over all rows of the same data and
    track; with fewer than ``FREEDOM`` degrees of freedom against ``POINTS``.

    Args:
        record: the new run.
        others: of the store.
    """
    rows: dict[str, list[RunRecord]] = defaultdict(list)
    for one in others:
        if one.scores is not None and _board(one) == _board(record) and one.run_id != record.run_id:
            rows[_row(one)].append(one)
    siblings = rows.get(_row(record), [])
    if record.scores is None or not siblings:
        return
    distance = record.scores.mAP - float(np.mean(_maps(siblings)))
    limit = _limit(list(rows.values()), len(siblings))
    if abs(distance) > limit:
        named = [f"{one.run_id} (seed {one.spec.seed}, {mAP:.2f})" for one, mAP in _told(siblings)]
        yield warning(
            f"mAP {record.scores.mAP:.2f} is {abs(distance):.1f} points "
            f"{'above' if distance > 0 else 'below'} the mean of the row's other seeds, where more "
            f"than {limit:.1f} is unlikely: {few(named)}"
        )


def _limit(rows: list[list[RunRecord]], siblings: int) -> float:
    freedom = sum(len(row) - 1 for row in rows)
    if freedom < FREEDOM:
        return POINTS
    squares = sum(float(np.var(_maps(row))) * len(row) for row in rows)
    return float(DEVIATIONS * np.sqrt(squares / freedom * (1 + 1 / siblings)))


def _told(row: list[RunRecord]) -> list[tuple[RunRecord, float]]:
    return [(one, one.scores.mAP) for one in row if one.scores is not None]


def _maps(row: list[RunRecord]) -> list[float]:
    return [mAP for _, mAP in _told(row)]


def _board(record: RunRecord) -> tuple[str, str, str]:
    return record.identity, record.spec.data, record.spec.track


def _row(record: RunRecord) -> str:
    return record.spec.model_copy(update={"seed": 0}).run_id
