"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbench.cli.console import Edition, OnlyTrack, Results


def leaderboard(
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to show in a terminal, as in mAP,interval,GMACs.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with every number.")] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="Print tables for a paper: mAP and costs.")
    ] = False,
) -> None:
    """Print a board for every data set and track, and write the boards to results/leaderboards/."""
    from mlbench.boards import render
    from mlbench.cli import show_boards

    chosen = show_boards.column_names(columns)
    found = show_boards.read(results)
    # A misspelt data set must end the command before anything is written.
    selected = found.select(dataset, track)
    if markdown:
        typer.echo(render.markdown(selected), nl=False)
    if csv:
        typer.echo(render.csv(*selected), nl=False)
    if latex:
        typer.echo(render.latex(selected), nl=False)
    if not (markdown or csv or latex):
        show_boards.show(selected, results, columns=chosen)
    show_boards.write(found)
