"""``mlbench history``: what changed on the boards since a date or a commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from mlbench.cli.console import console
from mlbench.types import RunRecord, SuiteError, Track, Value

if TYPE_CHECKING:
    from mlbench.boards.rows import Row, Table

COMMIT = 7
"""Characters that a text must have at least to be taken for a commit."""


def history(
    since: Annotated[str, typer.Argument(help="A date, or a commit of some record.")],
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(help="Only this edition, e.g. coco-mini; if none, those that begin so."),
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Only this track.")] = None,
) -> None:
    """Print what changed on the boards since a date or a commit."""
    from mlbench.boards.rows import select, tables
    from mlbench.cli import boards

    found = boards.read(results)
    superseded = found.store.superseded()
    time = moment(since, [*found.records, *superseded])
    shown = select(found.tables, dataset, track)
    then = as_of(time, found.records, superseded)
    known = {(record.run_id, record.started) for record in then}
    old = {record.run_id for record in then}
    again = {
        record.run_id
        for record in found.records
        if (record.run_id, record.started) not in known and record.run_id in old
    }
    names = {table.board for table in shown}
    before = [table for table in tables(then, found.store.influence) if table.board in names]
    rows = changes(before, shown, again)
    console.print(Text(f"Since {time.isoformat(timespec='minutes')}:", style="bold"))
    for name in dict.fromkeys(change.board for change in rows):
        console.print(Text(f"{name}:"), soft_wrap=True)
        for change in rows:
            if change.board == name:
                console.print(Text(f"  {said(change)}"), soft_wrap=True)
    if not rows:
        console.print("nothing changed on these boards")


class Change(Value):
    """What became of one row of a board; ``None`` where it was not, or is no more.

    Attributes:
        board: name of the board.
        row: method, backbone, loss and variant.
        what: ``new``, ``gone`` (its runs were superseded by ones without a score), ``scored`` again
            (superseded, or another seed), or ``ranked`` anew with the score that it had.
        rank: the first and the last rank that are not ruled out, before and after.
        mAP: before and after.
        superseded: runs of it that were made again.
    """

    board: str
    row: str
    what: Literal["new", "gone", "scored", "ranked"]
    rank: tuple[tuple[int, int] | None, tuple[int, int] | None]
    mAP: tuple[float | None, float | None]  # noqa: N815 - the field's own spelling
    superseded: tuple[str, ...] = ()


def moment(text: str, records: Iterable[RunRecord]) -> datetime:
    """The time that a text means: a date (its midnight, UTC), a time, or a commit.

    A commit stands for the end of its runs: what changed since then is all that was made later.

    Args:
        text: ``2026-11-21``, ``2026-11-21T14:30``, or the beginning of a commit of some record.
        records: all there are, superseded ones too.

    Raises:
        SuiteError: it is none of these, or a time that is still to come.
    """
    made = [r.began for r in records if len(text) >= COMMIT and _is_of(r, text)]
    if made:
        return max(made) + timedelta(seconds=1)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise SuiteError(
            f"{text}: neither a date such as 2026-11-21 nor the first {COMMIT} or more "
            "characters of a commit that a record here was made at"
        ) from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    now = datetime.now(UTC)
    if time > now:
        raise SuiteError(
            f"{text}: lies in the future; it is {now.isoformat(timespec='minutes')} now"
        )
    return time


def _is_of(record: RunRecord, commit: str) -> bool:
    return (record.commit or "").startswith(commit)


def as_of(
    time: datetime, records: Iterable[RunRecord], superseded: Iterable[RunRecord]
) -> list[RunRecord]:
    """The records that a store held then: of every run the newest that it had got.

    A record that somebody deleted is not known of.
    """
    newest: dict[str, RunRecord] = {}
    for record in (*superseded, *records):
        known = newest.get(record.run_id)
        if record.appeared < time and (known is None or known.appeared < record.appeared):
            newest[record.run_id] = record
    return list(newest.values())


def changes(
    before: Sequence[Table], after: Sequence[Table], superseded: Iterable[str] = ()
) -> list[Change]:
    """Row by row, in the order of the boards as they are now; nothing of what stayed as it was.

    That a row's last rank alone changed is told where the board has as many rows as it had: another
    row moves the last rank of most others, and says nothing of them.

    Args:
        before: the boards of then.
        after: the boards of now.
        superseded: ids of runs that were made again in between.
    """
    again = set(superseded)
    old = {(table.name, table.data, row.configuration): row for table, row in _rows(before)}
    places = {(table.name, table.data): table for table in before}
    found = []
    for table, row in _rows(after):
        was = old.pop((table.name, table.data, row.configuration), None)
        place = places.get((table.name, table.data))
        grown = place is None or len(place.rows) != len(table.rows)
        if change := _change(table, was, row, again, grown):
            found.append(change)
    for (name, data, _), row in old.items():
        change = _change(places[name, data], row, None, again, True)
        found += [change] if change else []
    return found


def _rows(tables: Iterable[Table]) -> list[tuple[Table, Row]]:
    return [(table, row) for table in tables for row in table.rows]


def _ranks(row: Row) -> tuple[int, int]:
    return row.rank, max(row.rank, row.rank_worst)


def _change(
    table: Table, was: Row | None, now: Row | None, again: set[str], grown: bool
) -> Change | None:
    row = now or was
    if row is None:
        return None
    redone = tuple(run_id for run_id in row.run_ids if run_id in again)
    what: Literal["new", "gone", "scored", "ranked"]
    if was is None or now is None:
        what = "new" if was is None else "gone"
    elif redone or was.run_ids != now.run_ids or was.mAP != now.mAP:
        what = "scored"
    elif was.rank != now.rank or (not grown and _ranks(was) != _ranks(now)):
        what = "ranked"
    else:
        return None
    return Change(
        board=table.name,
        row=row.title,
        what=what,
        rank=(_ranks(was) if was else None, _ranks(now) if now else None),
        mAP=(was.mAP if was else None, now.mAP if now else None),
        superseded=redone,
    )


def said(change: Change) -> str:
    """A change as a line."""
    from mlbench.boards.text import span

    rank, now = (span(*ranks) if ranks else "" for ranks in change.rank)
    score, scored = change.mAP
    if change.what == "new":
        text = f"new: {change.row}: {scored:.2f}, rank {now}"
    elif change.what == "gone":
        text = f"gone: {change.row}: was {score:.2f}, rank {rank}"
    elif change.what == "scored":
        text = f"scored again: {change.row}: {score:.2f} -> {scored:.2f}, rank {rank} -> {now}"
    else:
        text = f"rank {rank} -> {now}: {change.row}"
    made = f" (superseded: {', '.join(change.superseded)})" if change.superseded else ""
    return text + made
