"""``mlbench leaderboard``: print the boards and write them as files."""

from __future__ import annotations

from pathlib import Path

from mlbench.cli.console import Edition, OnlyTrack, Results


def leaderboard(
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
) -> None:
    """Print a board for every data set and track, and write the boards to results/leaderboards/."""
    from mlbench.cli import show_boards

    found = show_boards.read(results)
    # A misspelt data set must end the command before anything is written.
    show_boards.show(found.select(dataset, track))
    show_boards.write(found)
