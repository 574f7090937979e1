"""``mlbench list``: list all plugins, their distributions and their problems."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mlbench import registry
from mlbench.cli.console import AsJson, console, errors, plain_table
from mlbench.registry import EVERY_KIND, PLURALS
from mlbench.text import unknown
from mlbench.types import SuiteError


def list_plugins(
    kind: Annotated[
        str | None,
        typer.Option(help=f"Only this kind: {', '.join(EVERY_KIND)}.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all installed plugins."""
    wanted = [one for one in EVERY_KIND if kind in (None, one, PLURALS[one])]
    if kind is not None and not wanted:
        raise SuiteError(unknown(f"kind {kind!r}", kind, EVERY_KIND))
    found = [plugin for one in wanted for plugin in registry.plugins(one)]
    problems = registry.problems(found)
    for problem in registry.misplaced():
        errors.print(problem)
    if as_json:
        names = ("kind", "name", "distribution", "version", "value")
        rows = ({n: getattr(p, n) for n in names} | {"problem": problems.get(p)} for p in found)
        typer.echo(json.dumps(list(rows), indent=1))
        return
    table = plain_table(("kind", "name", "distribution", "version", ""))
    for p in found:
        table.add_row(p.kind, p.name, p.distribution, p.version, problems.get(p, ""))
    console.print(table)
