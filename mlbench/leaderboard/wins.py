"""Who beats whom on a board, as lines of text."""

from __future__ import annotations

from mlbench.leaderboard.rows import Table

LEGEND = "+ better than that row, - worse, = cannot be told apart"
LARGEST = 100
"""Rows that are shown at most: a longer line than this nobody reads."""


def win_matrix(table: Table) -> list[str]:
    """A line a row, and a character a row in each, in the order of the board; empty without rows.

    Lines begin with the row's number, which is that of its column, and end with what it is.
    """
    rows = table.rows[:LARGEST]
    width = len(str(len(rows)))
    numbers = [str(i + 1).rjust(width) for i in range(len(rows))]
    header = [" " * width + " " + "".join(digits) for digits in zip(*numbers, strict=True)]
    names = [f"{row.method}, {row.backbone}, {row.loss} {row.variant}" for row in rows]
    lines = [
        f"{number} {wins[: len(rows)]} {' '.join(name.split())}"
        for number, wins, name in zip(numbers, table.wins, names, strict=False)
    ]
    return [*header, *lines]


def rank_facts(table: Table) -> list[str]:
    """What a reader must know of the ranks of a board."""
    if len(table.rows) < 2:
        return []
    facts = [
        "#: 1 + how many rows are better with 95 % confidence (paired over images, Holm over all "
        "pairs of the board)."
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
    if table.unpaired:
        facts.append(
            f"{table.unpaired} of {len(table.rows)} rows have no usable predictions: they are "
            "ranked by their scores and intervals, as if they had seen other images."
        )
    return facts
