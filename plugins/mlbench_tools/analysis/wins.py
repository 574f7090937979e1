"""Who beats whom on a board, as lines of text."""

from __future__ import annotations

from mlbench.boards.rows import Table
from mlbench.boards.text import span

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
