"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import errors
from mlbench.types import SuiteError, Track

if TYPE_CHECKING:
    from mlbench.leaderboard.rows import Table
    from mlbench.types import RunRecord


def leaderboard(
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(help="Only this edition, e.g. coco-mini; if none, those that begin so."),
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
    from mlbench.cli import boards
    from mlbench.leaderboard import history
    from mlbench.leaderboard.rows import select

    found = boards.read(results)
    superseded = found.store.superseded() if since is not None else []
    # A misspelt time or data set ends the command before anything is written.
    time = None if since is None else history.moment(since, [*found.records, *superseded])
    shown = select(found.tables, dataset, track)
    if not shown:
        raise SuiteError(
            f"no record in {results} fits; `mlbench run` makes some, --results names another store"
        )
    boards.show(shown, found.published)
    boards.write(found)
    if html is not None:
        _write_page(shown, found.records, results, html)
    if wins:
        boards.show_wins(shown)
    if across:
        boards.show_across(shown)
    if time is not None:
        boards.show_changes(shown, found, superseded, time)


def _write_page(shown: list[Table], records: list[RunRecord], results: Path, folder: Path) -> None:
    from mlbench.cli.page import write_page

    index = write_page(shown, records, results, folder)
    errors.print(f"page: {index}", markup=False, highlight=False, soft_wrap=True)
