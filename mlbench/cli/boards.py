"""Parts of boards, and what they say beside their rows, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Set
from datetime import datetime
from pathlib import Path

from rich.text import Text

from mlbench.cli.console import cache_folder, console
from mlbench.leaderboard import across, history
from mlbench.leaderboard.influences import Influences
from mlbench.leaderboard.rows import Table, tables
from mlbench.leaderboard.wins import LEGEND, win_matrix
from mlbench.store import Store


def rows_of(table: Table, run_ids: Set[str]) -> Table:
    """The board with only the rows that have one of these runs; ranks stay those of the whole."""
    rows = tuple(row for row in table.rows if not run_ids.isdisjoint(row.run_ids))
    diverged = tuple(run for run in table.diverged if run.run_id in run_ids)
    return table.model_copy(update={"rows": rows, "diverged": diverged, "wins": ()})


def show_wins(results: Path, wanted: Callable[[Table], bool]) -> None:
    """Print which row of each wanted board beats which."""
    store = Store(results)
    for table in tables(store.records(), Influences(store, cache_folder())):
        if wanted(table) and len(table.rows) > 1:
            console.print(Text(f"{table.name}: {LEGEND}", style="bold"))
            _print_lines([*win_matrix(table), ""])


def show_across(results: Path, wanted: Callable[[Table], bool]) -> None:
    """Print how methods compare over the data sets of the wanted boards, a track at a time."""
    boards = [table for table in tables(Store(results).records()) if wanted(table)]
    differences = across.critical_differences(boards)
    for found in differences:
        _print_lines([*across.diagram(found), ""])
    if not differences:
        _print_lines(["None of these boards has runs of ours on a whole, known data set."])


def moment(results: Path, since: str) -> datetime:
    """The time that ``--since`` means in a store.

    Raises:
        SuiteError: it is neither a date of the past nor a commit of a record.
    """
    store = Store(results)
    return history.moment(since, [*store.records(), *store.superseded()])


def show_changes(results: Path, wanted: Callable[[Table], bool], time: datetime) -> None:
    """Print what became of each row of the wanted boards since then."""
    store = Store(results)
    influences = Influences(store, cache_folder())
    records, superseded = store.records(), store.superseded()
    then = history.as_of(time, records, superseded)
    known = {(record.run_id, record.started) for record in then}
    again = {
        record.run_id
        for record in records
        if (record.run_id, record.started) not in known
        and any(record.run_id == old.run_id for old in then)
    }
    before, after = (
        [table for table in tables(found, influences) if wanted(table)] for found in (then, records)
    )
    changes = history.changes(before, after, again)
    console.print(Text(f"Since {time.isoformat(timespec='minutes')}:", style="bold"))
    for name in dict.fromkeys(change.board for change in changes):
        _print_lines([f"{name}:"])
        _print_lines([f"  {history.said(one)}" for one in changes if one.board == name])
    if not changes:
        console.print("nothing changed on these boards")


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        console.print(Text(line), soft_wrap=True)
