"""Render tables for a terminal: whole columns are left out until a board fits its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlbench.boards.markup import one_line
from mlbench.boards.render import Column, columns, notes, title
from mlbench.boards.rows import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

ALWAYS = ("#", "method", "backbone", "loss", "variant", "mAP", "run")
"""Columns that are never left out."""
OTHERS = (
    *("latency", "GMACs", "ties", "interval", "params", "Pareto", "CF1", "OF1", "seeds"),
    *("size", "epochs", "batch 16", "images/s"),
)
"""The other columns; the first are the last to be left out."""
SHARED = ("backbone", "loss", "size", "epochs")
"""Columns that a line below the board replaces if all rows agree."""
FOLDED = {"method": 16, "backbone": 15, "loss": 12, "variant": 10, "Pareto": 14, "run": 8}
"""Columns whose cells may take several lines -> their width if space is short; a run id has 8."""


def terminal(tables: Sequence[Table], width: int, chosen: Sequence[str] = ()) -> RenderableType:
    """Return one rich table per board, no wider than ``width``.

    Args:
        tables: the boards.
        width: characters in a line.
        chosen: names of the columns to show, without units; the last are left out first.
    """
    from rich.console import Group

    return Group(*(part for table in tables for part in _board(table, width, chosen)))


def _board(table: Table, width: int, chosen: Sequence[str]) -> Iterator[RenderableType]:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    given = {_key(column): column for column in columns(table)}
    shared = [] if chosen else [name for name in SHARED if given[name].constant]
    always = ("run",) if chosen else tuple(n for n in ALWAYS if n not in shared)
    others = chosen or tuple(n for n in OTHERS if n not in shared)
    widths = _fit({n: c for n, c in given.items() if not c.empty}, always, others, width)
    order = [*dict.fromkeys((*chosen, "run"))] if chosen else list(given)
    drawn = RichTable(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    kept = [given[name] for name in order if name in widths]
    for column in kept:
        heading = Text(column.name.replace(" (", "\n("))
        drawn.add_column(heading, justify=column.side, overflow="fold", width=widths[_key(column)])
    for row in zip(*(column.cells for column in kept), strict=True):
        drawn.add_row(*(Text(one_line(cell)) for cell in row))
    lines = notes(table)
    if shared:
        lines.insert(0, f"All: {', '.join(f'{name} {given[name].cells[0]}' for name in shared)}.")
    if missing := [name for name in others if name not in widths and not given[name].empty]:
        lines.insert(
            0,
            f"Left out to fit {width} columns: {', '.join(missing)}. "
            "`mlbench leaderboard --columns` chooses.",
        )
    yield Text(one_line(title(table)), style="bold")
    if table.rows:
        yield drawn
        yield Text("")
    yield from (Text(f"- {one_line(line)}") for line in lines)
    yield Text("")


def _key(column: Column) -> str:
    """The name of a column without its unit."""
    return column.name.partition(" (")[0]


def _fit(
    given: dict[str, Column], always: Sequence[str], others: Sequence[str], width: int
) -> dict[str, int]:
    """Return the columns that fit and their widths, with one space between columns."""

    def total() -> int:
        return sum(widths.values()) + len(widths) - 1

    whole = {
        name: max(map(len, (*column.name.split(" ("), *map(one_line, column.cells))), default=0)
        for name, column in given.items()
    }
    least = {name: min(n, FOLDED.get(name, n)) for name, n in whole.items()}
    widths = {name: least[name] for name in always if name in given}
    while total() > width and max(widths.values()) > 4:
        widest = max((name for name in widths if name != "run"), key=lambda name: widths[name])
        widths[widest] -= 1
    for name in others:
        if name in given and total() + 1 + least[name] <= width:
            widths[name] = least[name]
    for name in FOLDED:
        if name in widths:
            widths[name] += min(whole[name] - widths[name], width - total())
    return widths
