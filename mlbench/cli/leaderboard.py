"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import console, errors
from mlbench.types import SuiteError, Track

if TYPE_CHECKING:
    from mlbench.leaderboard.rows import Table


def leaderboard(
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None, typer.Option(help="Only this data set or edition, e.g. coco-mini.")
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Only this track.")] = None,
) -> None:
    """Print a board for every data set and track, and write them to results/leaderboards/."""

    def wanted(table: Table) -> bool:
        return (dataset is None or table.identity.startswith(dataset)) and (
            track is None or table.track == track
        )

    if not show_boards(results, wanted):
        raise SuiteError(
            f"no record in {results} fits; `mlbench run` makes some, --results names another store"
        )


def show_boards(results: Path, wanted: Callable[[Table], bool]) -> int:
    """Print the wanted boards, write all of them; how many were printed."""
    from mlbench.leaderboard.render import terminal, write
    from mlbench.leaderboard.rows import tables
    from mlbench.store import Store

    store = Store(results)
    boards = tables(store.records())
    for problem in store.problems():
        errors.print(f"not on the board: {problem}", style="red", markup=False)
    shown = [table for table in boards if wanted(table)]
    if boards:
        write(boards, results / "leaderboards")
    if shown:
        console.print(terminal(shown))
        errors.print(f"written to {results / 'leaderboards'}", markup=False, highlight=False)
    return len(shown)
