"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlbench.types import Track


def leaderboard(
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(help="Only this edition, e.g. coco-mini, or all that begin with this text."),
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Only this track.")] = None,
) -> None:
    """Print a board for every data set and track, and write the boards to results/leaderboards/."""
    from mlbench.cli import show_boards

    found = show_boards.read(results)
    # A misspelt data set must end the command before anything is written.
    show_boards.show(found.select(dataset, track))
    show_boards.write(found)
