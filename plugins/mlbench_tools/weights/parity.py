"""``mlbench parity FIXTURES.json``: whether the plugins compute what their authors' code does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlbench.cli.console import console, errors
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench_tools.weights.prove import Result


def parity(
    fixtures: Annotated[
        Path, typer.Argument(help="A fixture file, its .npz beside it.", metavar="FIXTURES.json")
    ],
    only: Annotated[
        list[str] | None, typer.Option(help="Only this fixture or method; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recompute every fixture and print its largest errors; exit code 1 if one fails."""
    from mlbench_tools.weights.fixtures import read_fixtures
    from mlbench_tools.weights.prove import prove

    found = read_fixtures(fixtures)
    wanted = [one for one in found if not only or one.name in only or one.method in only]
    known = {one.name for one in found} | {one.method for one in found}
    if only and (strange := [name for name in only if name not in known]):
        raise SuiteError(
            f"{fixtures} has no {', '.join(strange)}; it has {', '.join(sorted(known))}"
        )
    results = []
    with errors.status("reading") as status:
        for one in wanted:
            status.update(one.name)
            results.append(prove(one))
    if as_json:
        typer.echo(json.dumps(_as_data(fixtures, results), indent=1))
    else:
        _show(results)
    if not results or not all(result.passed for result in results):
        raise typer.Exit(1)


def _as_data(file: Path, results: list[Result]) -> dict[str, object]:
    rows = [
        {
            **asdict(result),
            "largest_absolute_error": max((a.absolute for a in result.arrays), default=None),
            "largest_relative_error": max((a.relative for a in result.arrays), default=None),
            "passed": result.passed,
        }
        for result in results
    ]
    passed = bool(results) and all(result.passed for result in results)
    return {"file": str(file), "passed": passed, "fixtures": rows}


def _show(results: list[Result]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("fixture", "method", "array", "absolute", "relative", "allowed", ""):
        right = "right" if column in ("absolute", "relative", "allowed") else "left"
        table.add_column(column, justify=right, overflow="fold")  # type: ignore[arg-type]
    for result in results:
        for one in result.arrays:
            mark = "[green]ok[/green]" if one.passed else "[red]FAIL[/red]"
            numbers = (f"{one.absolute:.1e}", f"{one.relative:.1e}", f"{result.tolerance:.0e}")
            table.add_row(result.name, result.method, one.array, *numbers, mark)
        if result.error is not None:
            table.add_row(result.name, result.method, "", "", "", "", "[red]FAIL[/red]")
    console.print(table)
    for result in results:
        if result.error is not None:
            errors.print(f"{result.name}: {result.error}", style="red", markup=False)
    failed = sum(not result.passed for result in results)
    console.print(f"{len(results) - failed} of {len(results)} fixtures agree")
