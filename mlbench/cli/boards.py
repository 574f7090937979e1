"""The boards of a store, and what they say beside their rows, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rich.text import Text

from mlbench.cli.console import console, errors
from mlbench.cli.page import cards_of
from mlbench.leaderboard import across, history, published, render, tiers
from mlbench.leaderboard.rows import Table, tables
from mlbench.leaderboard.wins import LEGEND, win_matrix
from mlbench.metrics.protocols import evaluate
from mlbench.store import Influence, Store
from mlbench.text import count
from mlbench.types import RunRecord, StoreError


class Boards(NamedTuple):
    """A store that was read once.

    Attributes:
        store: it.
        records: all of its records.
        tables: all of its boards.
        published: the literature's scores beside them.
    """

    store: Store
    records: list[RunRecord]
    tables: list[Table]
    published: render.Published


def read(results: Path) -> Boards:
    """The boards of a store; files that should be a record and are none are named."""
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
    return Boards(store, records, found, _published(found, store, records))


def _published(
    boards: Iterable[Table], store: Store, records: Iterable[RunRecord]
) -> dict[str, list[tiers.Beside]]:
    """The literature's scores beside each board; a malformed file of them costs no board."""
    by_id = {record.run_id: record for record in records}

    def rescore(run_id: str, protocol: str) -> float:
        seen = store.predictions(by_id[run_id])
        return evaluate(protocol, seen.logits, seen.targets)["mAP"]

    try:
        scores = published.load(store.root / "published")
    except StoreError as error:
        errors.print(f"no published scores: {error}", style="red", markup=False)
        return {}
    return {table.name: tiers.beside(table, scores, rescore) for table in boards}


def write(boards: Boards) -> None:
    """Write all boards as files beside the records; a store without any gets none.

    Raises:
        StoreError: a file cannot be written.
    """
    if boards.tables:
        folder = boards.store.root / "leaderboards"
        render.write(boards.tables, folder, boards.published)
        errors.print(f"written to {folder}", markup=False, highlight=False)


def show(
    shown: Sequence[Table], published: render.Published, asked: Set[str] | None = None
) -> None:
    """Print boards.

    Args:
        shown: the boards.
        published: the literature's scores beside them.
        asked: ids of runs whose rows alone are printed; their ranks are those of the whole board.
    """
    parts = shown if asked is None else [_rows_of(table, asked) for table in shown]
    if parts:
        console.print(render.terminal(parts, published))
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


def show_wins(shown: Iterable[Table]) -> None:
    """Print which row of each board beats which."""
    for table in shown:
        if len(table.rows) > 1:
            console.print(Text(f"{table.name}: {LEGEND}", style="bold"))
            _print_lines([*win_matrix(table), ""])


def show_across(shown: Sequence[Table]) -> None:
    """Print how methods compare over the data sets of these boards, a track at a time."""
    cards, _ = cards_of({table.dataset for table in shown})
    differences = across.critical_differences(shown, cards)
    for found in differences:
        _print_lines([*across.diagram(found), ""])
    if not differences:
        _print_lines(["None of these boards has runs of ours on a whole, known data set."])


def show_changes(
    shown: Sequence[Table], boards: Boards, superseded: Sequence[RunRecord], time: datetime
) -> None:
    """Print what became of each row of these boards since then.

    Args:
        shown: the boards.
        boards: all of the store.
        superseded: records of it that newer ones took the place of.
        time: then.
    """
    then = history.as_of(time, boards.records, superseded)
    known = {(record.run_id, record.started) for record in then}
    old = {record.run_id for record in then}
    again = {
        record.run_id
        for record in boards.records
        if (record.run_id, record.started) not in known and record.run_id in old
    }
    names = {table.board for table in shown}
    before = [table for table in tables(then, boards.store.influence) if table.board in names]
    changes = history.changes(before, shown, again)
    console.print(Text(f"Since {time.isoformat(timespec='minutes')}:", style="bold"))
    for name in dict.fromkeys(change.board for change in changes):
        _print_lines([f"{name}:"])
        _print_lines([f"  {history.said(one)}" for one in changes if one.board == name])
    if not changes:
        console.print("nothing changed on these boards")


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        console.print(Text(line), soft_wrap=True)
