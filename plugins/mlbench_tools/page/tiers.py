"""Published scores beside a board of ours: a tier of its own, set against our rows, never ranked.

A difference is given only on boards of the published track, as the others do not train as papers
do, and where method, backbone, image size, test images and the definition of mAP are the same, and
the authors had no extra data. What else differs (pretraining, the choice of
the epoch on the test split) stands in the row or below the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from mlbench.boards.rows import Row, Table
from mlbench.boards.text import percent
from mlbench.types import MlbenchError
from mlbench_tools.page.published import Published

if TYPE_CHECKING:
    pass

CANONICAL = "ap"
"""The protocol that a board's mAP is taken by."""
UNSAID = "?"
LEGEND = (
    "Not ranked: the authors' own images, pixels, pretraining and choice of epoch, mostly by the "
    "test split. Ours and the difference stand on boards of the published track, where method, "
    "backbone, size, test images and protocol agree and no extra data was used; "
    f"{UNSAID} where the source does not tell."
)

Rescore = Callable[[str, str], float]
"""(run id, protocol) -> mAP in percent, from the run's predictions."""


class Beside(NamedTuple):
    """A published row, and one of ours that is the same in what can be held equal.

    Attributes:
        ours: None where the board has no such row, or is not of the published track.
        mAP: ours by the protocol of the published one; None where that cannot be had.
    """

    published: Published
    ours: Row | None = None
    mAP: float | None = None  # noqa: N815 - the field's own spelling

    @property
    def difference(self) -> float | None:
        """Our mAP minus theirs, in points."""
        theirs = self.published.score("mAP")
        return None if theirs is None or self.mAP is None else self.mAP - theirs.value


def beside(
    table: Table, published: Iterable[Published], rescore: Rescore | None = None
) -> list[Beside]:
    """The published tier of a board, by method; empty for a part of the data or of its labels.

    Args:
        table: the board.
        published: as ``published.load`` gives them.
        rescore: scores our runs by another protocol than the board's; without it, or where a run's
            predictions are gone, a number that was taken by another protocol gets no difference.
    """
    edition = re.sub(r"-unknown-[0-9a-f]{16}$", "", table.identity)
    rows = [row for row in published if edition in row.boards and table.labels is None]
    if table.test_images not in {row.test_images for row in rows}:
        return []
    rows.sort(key=by_method)
    comparable = table.rows if table.track == "published" else ()
    found = []
    for row in rows:
        mine = [ours for ours in comparable if _same(row, ours, table.test_images)]
        found += [Beside(row, ours, _ours(ours, row, rescore)) for ours in mine] or [Beside(row)]
    return found


def by_method(row: Published) -> tuple[str, str, int, int]:
    """The order of published rows: by method, backbone, size and place in the file."""
    return row.method, row.backbone or "", row.image_size or 0, row.line


def _same(row: Published, ours: Row, test_images: int) -> bool:
    return (
        (row.method, row.backbone, row.image_size) == (ours.method, ours.backbone, ours.image_size)
        and row.trained_at in (None, ours.image_size)
        and row.test_images == test_images
        and row.loss in (None, ours.loss)
        and not row.extra_data
    )


def _ours(ours: Row, row: Published, rescore: Rescore | None) -> float | None:
    """Our mean over the seeds by their protocol."""
    if row.protocol == CANONICAL:
        return ours.mAP
    if row.protocol is None or rescore is None:
        return None
    try:
        return fmean(rescore(run_id, row.protocol) for run_id in ours.run_ids)
    except MlbenchError:
        return None


def cells(tier: Iterable[Beside]) -> dict[str, list[str]]:
    """The tier as columns of text, for every rendering alike; ``tier`` must not be empty."""
    lines = [_line(one) for one in tier]
    return {name: [line[name] for line in lines] for name in lines[0]}


NUMBERS = ("size", "mAP", "ours", "difference")
"""Columns that stand on the right."""
NARROW = ("method", "backbone", "trained on", "protocol", *NUMBERS)
"""Columns of a terminal."""


def _line(one: Beside) -> dict[str, str]:
    row, theirs, difference = one.published, one.published.score("mAP"), one.difference
    trained = f" (trained at {row.trained_at})" if row.trained_at else ""
    extra = f" + {row.extra_data}" if row.extra_data else ""
    source = theirs or row.scores[0]
    by = "" if row.by == "authors" else "not by its authors; "
    return {
        "method": row.method if row.loss is None else f"{row.method}, {row.loss}",
        "backbone": row.backbone or UNSAID,
        "size": f"{row.image_size or UNSAID}{trained}",
        "trained on": (row.pretraining or UNSAID) + extra,
        "protocol": row.protocol or UNSAID,
        "mAP": percent(theirs.value) if theirs else "-",
        "ours": "-" if one.mAP is None else f"{one.mAP:.2f}",
        "difference": "-" if difference is None else f"{difference:+.2f}",
        "run": "" if one.ours is None else " ".join(r[:8] for r in one.ours.run_ids),
        "read in": f"{by}{source.source} ({source.status})",
        "note": row.note,
    }
