"""Read the boards of a store, print them, and write them as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from mlbench.boards import fitting, render
from mlbench.boards.rows import Table, select, tables
from mlbench.cli.console import console, errors
from mlbench.store import Store
from mlbench.text import count
from mlbench.types import RunRecord, StoreError, SuiteError, Track


class Boards(NamedTuple):
    """All boards of a store.

    Attributes:
        store: the store.
        records: all its records that can be used.
        tables: all its boards.
    """

    store: Store
    records: list[RunRecord]
    tables: list[Table]

    def select(self, dataset: str | None, track: Track | None) -> list[Table]:
        """Select the boards of a data set and a track (see ``mlbench.boards.rows.select``).

        Raises:
            SuiteError: no board matches.
        """
        if found := select(self.tables, dataset, track):
            return found
        raise SuiteError(
            f"no record in {self.store.root} matches; make one with `mlbench run`, or name another "
            "folder with --results"
        )


def read(results: Path) -> Boards:
    """Read all boards of a store; print why a record or its predictions are left out."""
    store = Store(results)
    records, problems = store.read_all()
    _name(problems)
    return Boards(store, *make_tables(store, records))


def make_tables(store: Store, records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[Table]]:
    """Make boards of the records, one a run, whose predictions are their own; name the others.

    Returns:
        The records that are on the boards, and the boards.
    """
    listed = list(records)
    influences, problems = store.influences(listed)
    _name(problems)
    kept = [record for record in listed if record.run_id in influences]
    for record in kept:
        if influences[record.run_id] is None and record.scores is not None:
            file = store.predictions_file(record)
            text = f"run {record.run_id} has no usable predictions: {file}"
            errors.print(text, style="red", markup=False, highlight=False)
    costs, unreadable = store.read_costs()
    for problem in unreadable:
        errors.print(str(problem), style="red", markup=False, highlight=False)
    return kept, tables(kept, lambda record: influences[record.run_id], costs)


def _name(problems: Iterable[StoreError]) -> None:
    for problem in problems:
        errors.print(f"not on the board: {problem}", style="red", markup=False)


def write(boards: Boards) -> None:
    """Write all boards as files next to the records; write nothing if there are no boards.

    Raises:
        StoreError: a file cannot be written.
    """
    if boards.tables:
        folder = boards.store.root / "leaderboards"
        render.write(boards.tables, folder)
        errors.print(f"written to {folder}", markup=False, highlight=False)


def column_names(text: str | None) -> list[str]:
    """Read a list of columns such as ``mAP,GMACs``.

    Raises:
        SuiteError: there is no such column.
    """
    names = {name.lower(): name for name in (*fitting.ALWAYS, *fitting.OTHERS)}
    given = [name.strip() for name in text.split(",")] if text else []
    for name in given:
        if name.lower() not in names:
            raise SuiteError(f"--columns: {name!r} is not one of {', '.join(names.values())}")
    return [names[name.lower()] for name in given]


def show(
    chosen: Sequence[Table], run_ids: Set[str] | None = None, columns: Sequence[str] = ()
) -> None:
    """Print boards.

    Args:
        chosen: the boards.
        run_ids: print only rows with one of these runs; their ranks are those of the whole board.
        columns: names of the columns to print.
    """
    parts = chosen if run_ids is None else [_select_rows(table, run_ids) for table in chosen]
    if parts:
        console.print(fitting.terminal(parts, console.width, columns))
    for table, part in zip(chosen, parts, strict=True):
        if len(part.rows) < len(table.rows):
            text = (
                f"{table.name}: {len(part.rows)} of {count(len(table.rows), 'row')} shown, ranked "
                "among all of them; `mlbench leaderboard` prints the whole board"
            )
            errors.print(text, markup=False, highlight=False)


def _select_rows(table: Table, run_ids: Set[str]) -> Table:
    """Keep the rows that have one of these runs, with their ranks on the whole board."""
    rows = tuple(row for row in table.rows if not run_ids.isdisjoint(row.run_ids))
    diverged = tuple(run for run in table.diverged if run.run_id in run_ids)
    return table.model_copy(update={"rows": rows, "diverged": diverged, "wins": ()})
