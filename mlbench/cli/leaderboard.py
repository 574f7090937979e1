"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import cache_folder, console, errors
from mlbench.types import StoreError, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.leaderboard.rows import Table
    from mlbench.leaderboard.tiers import Beside
    from mlbench.store import Store
    from mlbench.types import RunRecord


def leaderboard(
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None, typer.Option(help="Only this data set or edition, e.g. coco-mini.")
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Only this track.")] = None,
    wins: Annotated[bool, typer.Option("--wins", help="Also print which row beats which.")] = False,
    across: Annotated[
        bool, typer.Option("--across", help="Also compare methods over data sets.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Also print what changed since a date, or a commit of some record."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write pages to look at into this folder; open its index.html."),
    ] = None,
) -> None:
    """Print a board for every data set and track, and write them to results/leaderboards/."""

    def wanted(table: Table) -> bool:
        return (dataset is None or table.identity.startswith(dataset)) and (
            track is None or table.track == track
        )

    from mlbench.cli import boards

    time = None if since is None else boards.moment(results, since)  # a misspelt one writes nothing
    if not show_boards(results, wanted, html):
        raise SuiteError(
            f"no record in {results} fits; `mlbench run` makes some, --results names another store"
        )
    if wins:
        boards.show_wins(results, wanted)
    if across:
        boards.show_across(results, wanted)
    if time is not None:
        boards.show_changes(results, wanted, time)


def show_boards(
    results: Path,
    wanted: Callable[[Table], bool],
    html: Path | None = None,
    asked: Set[str] | None = None,
) -> int:
    """Print the wanted boards, write all of them; how many were printed.

    Args:
        results: the store.
        wanted: whether a board is printed.
        html: the folder of a site of them, if there is to be one.
        asked: ids of runs whose rows alone are printed; their ranks are those of the whole board.
    """
    from mlbench.cli.boards import rows_of
    from mlbench.leaderboard.influences import Influences
    from mlbench.leaderboard.render import terminal, write
    from mlbench.leaderboard.rows import tables
    from mlbench.leaderboard.text import count
    from mlbench.store import Store

    store = Store(results)
    records = store.records()
    boards = tables(records, Influences(store, cache_folder()))
    for problem in store.problems():
        errors.print(f"not on the board: {problem}", style="red", markup=False)
    shown = [table for table in boards if wanted(table)]
    published = _published(boards, store, records)
    if boards:
        write(boards, results / "leaderboards", published)
    if shown:
        whole = shown
        shown = shown if asked is None else [rows_of(table, asked) for table in shown]
        console.print(terminal(shown, published))
        for table, all_of_it in zip(shown, whole, strict=True):
            if others := len(all_of_it.rows) - len(table.rows):
                rows, were = count(others, "more row"), "was" if others == 1 else "were"
                said = f"{table.name}: {rows}, which the ranks count, {were} not asked for"
                errors.print(said, markup=False, highlight=False)
        errors.print(f"written to {results / 'leaderboards'}", markup=False, highlight=False)
    if html is not None and shown:
        from mlbench.cli.page import write_page

        index = write_page(shown, records, results, html)
        errors.print(f"page: {index}", markup=False, highlight=False, soft_wrap=True)
    return len(shown)


def _published(
    boards: list[Table], store: Store, records: list[RunRecord]
) -> dict[str, list[Beside]]:
    """The literature's scores beside each board; a malformed file of them costs no board."""
    from mlbench.leaderboard.published import load
    from mlbench.leaderboard.tiers import beside
    from mlbench.metrics.protocols import evaluate

    by_id = {record.run_id: record for record in records}

    def rescore(run_id: str, protocol: str) -> float:
        seen = store.predictions(by_id[run_id])
        return evaluate(protocol, seen.logits, seen.targets)["mAP"]

    try:
        scores = load(store.root / "published")
    except StoreError as error:
        errors.print(f"no published scores: {error}", style="red", markup=False)
        return {}
    return {table.name: beside(table, scores, rescore) for table in boards}
