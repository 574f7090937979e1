"""``mlbench list``: every plugin, where it comes from, and which are broken."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from mlbench import registry
from mlbench.cli.console import cache_folder, console
from mlbench.health import broken
from mlbench.registry import KINDS, PLURALS, Kind
from mlbench.types import SuiteError


def list_plugins(
    kind: Annotated[
        str | None, typer.Option(help=f"Only this kind: {', '.join(KINDS)}.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    cards: Annotated[
        bool, typer.Option("--cards", help="Print the methods' cards as a Markdown table.")
    ] = False,
) -> None:
    """List every plugin that is installed."""
    if cards:
        from mlbench.cards import method_table

        typer.echo(method_table(), nl=False)
        return
    found = registry.plugins(_kind(kind))
    problems = {
        plugin: f"broken: {reason}" for plugin, reason in broken(found, cache_folder()).items()
    }
    for hits in registry.clashes().values():
        claims = " and ".join(p.distribution for p in hits)
        problems |= dict.fromkeys(hits, f"clash: claimed by {claims}; uninstall all but one")
    if as_json:
        rows = [
            {
                "kind": p.kind,
                "name": p.name,
                "distribution": p.distribution,
                "version": p.version,
                "value": p.value,
                "problem": problems.get(p),
            }
            for p in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "name", "distribution", "version", ""):
        table.add_column(column, overflow="fold")
    for p in found:
        table.add_row(p.kind, p.name, p.distribution, p.version, problems.get(p, ""))
    console.print(table)


def _kind(text: str | None) -> Kind | None:
    if text is None:
        return None
    for kind in KINDS:
        if text in (kind, PLURALS[kind]):
            return kind
    raise SuiteError(registry.unknown(f"kind {text!r}", text, KINDS))
