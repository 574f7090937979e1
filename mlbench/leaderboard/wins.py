"""Who beats whom on a board, as lines of text."""

from __future__ import annotations

from mlbench.leaderboard.rows import Table
from mlbench.leaderboard.text import span

LEGEND = "+ better than that row, - worse, = cannot be told apart"
LARGEST = 100
"""Rows that are shown at most: a longer line than this nobody reads."""


def win_matrix(table: Table) -> list[str]:
    """A line per row with a character for every row, in the board's order; empty without rows.

    Lines begin with the row's place by mAP, which is that of its column, and end with what it is
    and the ranks that are not ruled out.
    """
    rows = table.rows[:LARGEST]
    width = len(str(len(rows)))
    numbers = [str(i + 1).rjust(width) for i in range(len(rows))]
    header = [" " * width + " " + "".join(digits) for digits in zip(*numbers, strict=True)]
    lines = [
        f"{number} {wins[: len(rows)]} {row.title} (# {span(row.rank, row.rank_worst)})"
        for number, wins, row in zip(numbers, table.wins, rows, strict=False)
    ]
    return [*header, *lines]


def rank_facts(table: Table) -> list[str]:
    """What a reader must know of the ranks of a board."""
    if len(table.rows) < 2:
        return []
    facts = [
        "Rows stand in the order of mAP. #: the ranks that are not ruled out with 95 % confidence, "
        "from 1 + how many rows are significantly better to how many are not significantly worse "
        "(paired over images, Holm over all pairs of the board)."
    ]
    if table.training_deviation is None:
        facts.append(
            "No row has several seeds: the noise of training is not counted, and ranks speak of "
            "these trained models only."
        )
    else:
        facts.append(
            f"Noise of training is counted: sd {table.training_deviation:.2f} between seeds, over "
            "all rows that have several."
        )
    if table.unsteady:
        facts.append(
            "Not so steady, and held to their own spread: " + "; ".join(table.unsteady) + "."
        )
    if table.unpaired:
        facts.append(
            f"{table.unpaired} of {len(table.rows)} rows have no usable predictions: they are "
            "ranked by their scores and intervals, as if they had seen other images."
        )
    return facts
