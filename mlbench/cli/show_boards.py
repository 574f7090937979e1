"""Read the boards of a store, print them, and write them as files."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from mlbench.boards import render
from mlbench.boards.rows import Table, select, tables
from mlbench.cli.console import console, errors
from mlbench.store import Influence, Store
from mlbench.text import count
from mlbench.types import RunRecord, SuiteError, Track


class Boards(NamedTuple):
    """A store that was read once.

    Attributes:
        store: it.
        records: all of its records.
        tables: all of its boards.
    """

    store: Store
    records: list[RunRecord]
    tables: list[Table]

    def select(self, dataset: str | None, track: Track | None) -> list[Table]:
        """The boards of a data set and a track (see ``mlbench.boards.rows.select``).

        Raises:
            SuiteError: there is none.
        """
        if found := select(self.tables, dataset, track):
            return found
        raise SuiteError(
            f"no record in {self.store.root} matches; `mlbench run` makes records, --results names "
            "another store"
        )


def read(results: Path) -> Boards:
    """Read all boards of a store, and name every file that should be a record and is none."""
    store = Store(results)
    records, problems = store.read_all()
    for problem in problems:
        errors.print(f"not on the board: {problem}", style="red", markup=False)
    unusable: dict[str, RunRecord] = {}

    def influence(record: RunRecord) -> Influence | None:
        found = store.influence(record)
        if found is None:
            unusable[record.run_id] = record
        return found

    found = tables(records, influence)
    for record in unusable.values():
        said = f"run {record.run_id} has no usable predictions: {store.predictions_file(record)}"
        errors.print(said, style="red", markup=False, highlight=False)
    return Boards(store, records, found)


def write(boards: Boards) -> None:
    """Write all boards as files beside the records; a store without any gets none.

    Raises:
        StoreError: a file cannot be written.
    """
    if boards.tables:
        folder = boards.store.root / "leaderboards"
        render.write(boards.tables, folder)
        errors.print(f"written to {folder}", markup=False, highlight=False)


def show(shown: Sequence[Table], asked: Set[str] | None = None) -> None:
    """Print boards.

    Args:
        shown: the boards.
        asked: ids of runs whose rows alone are printed; their ranks are those of the whole board.
    """
    parts = shown if asked is None else [_rows_of(table, asked) for table in shown]
    if parts:
        console.print(render.terminal(parts))
    for table, part in zip(shown, parts, strict=True):
        if others := len(table.rows) - len(part.rows):
            rows, were = count(others, "more row"), "was" if others == 1 else "were"
            said = f"{table.name}: {rows}, which the ranks count, {were} not asked for"
            errors.print(said, markup=False, highlight=False)


def _rows_of(table: Table, run_ids: Set[str]) -> Table:
    """The board with only the rows that have one of these runs; ranks stay those of the whole."""
    rows = tuple(row for row in table.rows if not run_ids.isdisjoint(row.run_ids))
    diverged = tuple(run for run in table.diverged if run.run_id in run_ids)
    return table.model_copy(update={"rows": rows, "diverged": diverged, "wins": ()})
