"""``mlbench check NAME...``: check plugins against the contract of their kind."""

from __future__ import annotations

from typing import Annotated

import typer

from mlbench import registry
from mlbench.cli.console import console
from mlbench.text import count


def check(
    names: Annotated[list[str], typer.Argument(help="Names of plugins of any kind.")],
) -> None:
    """Check plugins against the contract of their kind; exit code 1 if a check fails."""
    found = [plugin for name in names for plugin in registry.find_all(name)]
    import mlbench.contracts as contracts

    failed = 0
    for plugin in found:
        console.print(f"{plugin.kind} {plugin.label}", style="bold", markup=False)
        for result in contracts.check(plugin):
            failed += not result.ok
            mark = "[green]ok  [/green]" if result.ok else "[red]FAIL[/red]"
            console.print(f"  {mark} {result.name}")
            if result.reason:
                console.print(f"       {result.reason}", markup=False)
    if failed:
        console.print(f"{count(failed, 'check')} failed", style="red")
        raise typer.Exit(1)
