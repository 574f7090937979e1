"""``mlbench explain``: how much of the spread of mAP each cause accounts for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_json

from mlbench.cli.console import AsJson, Results, console, plain_table
from mlbench.text import count
from mlbench.types import SuiteError
from mlbench_tools.analysis.compare import p_value

if TYPE_CHECKING:
    from mlbench_tools.analysis.variance import BoardVariance


def explain(
    folder: Annotated[Path | None, typer.Argument(help="In place of --results.")] = None,
    results: Results = Path("results"),
    json: AsJson = False,
) -> None:
    """Split the variance of mAP on every board by backbone, head, loss, other settings and seed."""
    from mlbench.cli import show_boards
    from mlbench_tools.analysis.variance import analyse

    results = folder or results
    found = analyse(show_boards.read(results).records)
    if not found:
        raise SuiteError(f"no record with a score in {results}; `mlbench run` makes some")
    if json:
        typer.echo(to_json(found, indent=1))
        return
    for board in found:
        _show(board)


def _show(board: BoardVariance) -> None:
    from rich.text import Text

    title = f"{board.board}: {count(board.runs, 'run')}, sd {board.deviation:.2f} points of mAP"
    console.print(Text(title, style="bold"))
    numbers = ("levels", "df", "share", "points", "p")
    table = plain_table(("cause", *numbers), numbers)
    for part in board.parts:
        table.add_row(
            part.name,
            "" if part.levels is None else str(part.levels),
            str(part.freedom),
            "unknown" if part.share is None else f"{round(part.share, 1) + 0.0} %",
            "" if part.deviation is None else f"{part.deviation:.2f}",
            "" if part.p is None else p_value(part.p).removeprefix("= "),
        )
    if board.parts:
        console.print(table)
    for remark in board.words:
        console.print(Text(f"- {remark}"))
    console.print()
