"""``mlbench history``: what changed on the boards since a date or a commit."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mlbench.boards.markup import span
from mlbench.cli.console import Edition, OnlyTrack, Results, console
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.boards.rows import Row, Table
    from mlbench.types import RunRecord

COMMIT = 7
"""Least number of characters of a commit."""


def history(
    since: Annotated[str, typer.Argument(help="A date, or the commit of a record.")],
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
) -> None:
    """Print what changed on the boards since a date or a commit."""
    from mlbench.cli import show_boards

    found = show_boards.read(results)
    superseded = found.store.superseded()
    time = moment(since, [*found.records, *superseded])
    shown = found.select(dataset, track)
    then = {record.run_id: record for record in as_of(time, found.records, superseded)}
    repeated = {r.run_id for r in found.records if then.get(r.run_id, r).started != r.started}
    boards = set(map(_board, shown))
    _, earlier = show_boards.make_tables(found.store, then.values())
    before = [table for table in earlier if _board(table) in boards]
    lines = changes(before, shown, repeated)
    console.print(Text(f"Since {time.isoformat(timespec='minutes')}:", style="bold"))
    for board, group in groupby(lines, key=lambda line: line[0]):
        console.print(Text(f"{board}:"), soft_wrap=True)
        for _, line in group:
            console.print(Text(f"  {line}"), soft_wrap=True)
    if not lines:
        console.print("nothing changed on these boards")


def moment(text: str, records: Iterable[RunRecord]) -> datetime:
    """Parse a date (its midnight, UTC), a time, or a commit.

    A commit stands for the end of its runs: everything made later counts as a change since then.

    Raises:
        SuiteError: the text is none of these.
    """
    if len(text) >= COMMIT:
        began = [record.began for record in records if (record.commit or "").startswith(text)]
        if began:
            return max(began) + timedelta(seconds=1)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise SuiteError(
            f"{text}: neither a date such as 2026-11-21 nor the first {COMMIT} or more "
            "characters of the commit of a record here"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def as_of(
    time: datetime, records: Iterable[RunRecord], superseded: Iterable[RunRecord]
) -> list[RunRecord]:
    """The newest record of every run that a store held at a time; deleted ones are not known."""
    newest: dict[str, RunRecord] = {}
    for record in (*superseded, *records):
        known = newest.get(record.run_id)
        if record.appeared < time and (known is None or known.appeared < record.appeared):
            newest[record.run_id] = record
    return list(newest.values())


def changes(
    before: Sequence[Table], after: Sequence[Table], repeated: Container[str] = ()
) -> list[tuple[str, str]]:
    """List the rows that changed, by board in the order of the boards as they are now.

    A row whose last rank alone changed is listed only if its board has as many rows as before:
    another row moves the last rank of most others.

    Returns:
        (name of the board, what changed in a row): a row is new, gone (its runs were superseded by
        ones without a score), scored again (a run of it was repeated, or it has another seed), or
        has another rank.
    """
    old, new = (
        {_board(table): {row.configuration: row for row in table.rows} for table in tables}
        for tables in (before, after)
    )
    names = {_board(table): table.name for table in (*before, *after)}
    found = []
    for board in dict.fromkeys([*new, *old]):
        rows, old_rows = new.get(board, {}), old.get(board, {})
        for key in dict.fromkeys([*rows, *old_rows]):
            same_size = len(rows) == len(old_rows)
            line = _change(old_rows.get(key), rows.get(key), repeated, same_size)
            found += [(names[board], line)] if line else []
    return found


def _board(table: Table) -> tuple[str, str]:
    """What identifies a board: its name, without what tells it from later boards, and its data."""
    return table.name.replace(f"-images-{table.data.rpartition('-')[2]}", ""), table.data


def _change(
    was: Row | None, now: Row | None, repeated: Container[str], same_size: bool
) -> str | None:
    """What changed between two versions of a row, one of which may be missing."""
    versions = [row for row in (was, now) if row]
    title, run_ids = versions[-1].title, versions[-1].run_ids
    scores = " -> ".join(f"{row.mAP:.2f}" for row in versions)
    ranks = [span(row.rank, row.rank_worst) for row in versions]
    rank = f"rank {' -> '.join(ranks)}"
    again = [run_id for run_id in run_ids if run_id in repeated]
    superseded = f" (superseded: {', '.join(again)})" if again else ""
    if was is None:
        return f"new: {title}: {scores}, {rank}{superseded}"
    if now is None:
        return f"gone: {title}: was {scores}, {rank}{superseded}"
    if again or was.run_ids != now.run_ids or was.mAP != now.mAP:
        return f"scored again: {title}: {scores}, {rank}{superseded}"
    if was.rank != now.rank or (same_size and ranks[0] != ranks[1]):
        return f"{rank}: {title}"
    return None
