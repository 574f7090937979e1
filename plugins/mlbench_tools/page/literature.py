"""The literature's numbers beside ours, as lines of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlbench.boards.rows import Table
from mlbench.boards.text import percent
from mlbench.types import MeasureError
from mlbench_tools.page.board_pages import address
from mlbench_tools.page.facts import NONE, number
from mlbench_tools.page.protocol_tables import Read
from mlbench_tools.page.published import Published
from mlbench_tools.page.tiers import Beside, Rescore, beside, by_method


def lines(
    published: Sequence[Published],
    tables: Iterable[Table],
    methods: Iterable[str],
    rescore: Rescore,
) -> list[dict[str, Any]]:
    """A line per published row, or per row of ours that it may be compared with.

    Args:
        published: what the literature has.
        tables: the boards.
        methods: those that have a page.
        rescore: our mAP by another protocol.
    """
    paired: dict[int, list[Beside]] = {}
    for table in tables:
        for pair in beside(table, published, rescore):
            if pair.ours is not None:
                paired.setdefault(id(pair.published), []).append(pair)
    pages = {name: address("method", name) for name in methods}
    ordered = sorted(published, key=lambda row: (row.dataset, *by_method(row)))
    return [
        {**_theirs(row), "page": pages.get(row.method), **_ours(pair)}
        for row in ordered
        for pair in paired.get(id(row), [Beside(row)])
    ]


def cached_scores(read: Read) -> Rescore:
    """Our mAP by any protocol that the runs' pages have computed."""

    def rescore(run_id: str, protocol: str) -> float:
        found = read(run_id)
        for line in found.lines if found else ():
            if line.name == protocol and "mAP" in line.values:
                return line.values["mAP"]
        raise MeasureError(f"{protocol} of run {run_id} was not computed")

    return rescore


def _theirs(row: Published) -> dict[str, Any]:
    statuses = dict.fromkeys(score.status for score in row.scores)
    by = "" if row.by == "authors" else " (by others)"
    return {
        "dataset": row.dataset,
        "method": row.method + (f" with {row.loss}" if row.loss else "") + by,
        "backbone": row.backbone or NONE,
        "size": row.image_size or NONE,
        "pretraining": row.pretraining or NONE,
        "extra": row.extra_data,
        **{name: _score(row, name) for name in ("mAP", "CF1", "OF1")},
        "protocol": row.protocol or "not said",
        "status": ", ".join(statuses),
        "sources": list(dict.fromkeys(score.source for score in row.scores)),
    }


def _score(row: Published, metric: str) -> str:
    found = row.score(metric)
    return NONE if found is None else percent(found.value)


def _ours(pair: Beside) -> dict[str, Any]:
    difference = pair.difference
    return {
        "run": address("run", pair.ours.run_ids[0]) if pair.ours else None,
        "ours": number(pair.mAP) if pair.mAP is not None else "run",
        "difference": NONE if difference is None else f"{difference:+.2f}",
    }
