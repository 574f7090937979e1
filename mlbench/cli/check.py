"""``mlbench check NAME...``: check plugins against the contract of their kind."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import console
from mlbench.text import count


def check(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Backbones, heads, losses, data sets, recipes; other kinds with checks."
        ),
    ],
) -> None:
    """Check plugins against the contract of their kind; exit code 1 if a check fails."""
    kinds = {check.name for check in registry.plugins("check")}
    found = [plugin for name in names for plugin in registry.find_all(name, kinds)]
    import mlbench.contracts as contracts

    faults = 0
    for plugin in found:
        console.print(f"{plugin.kind} {plugin.label}", style="bold")
        results = contracts.check(plugin)
        for result in results:
            if result.cause:
                continue
            faults += not result.ok
            mark = ("ok  ", "green") if result.ok else ("FAIL", "red")
            more = sum(other.cause == result.name for other in results)
            followers = f" and {count(more, 'more check')}" if more else ""
            said = f": {result}" if str(result) else ""
            text = Text.assemble("  ", mark, f" {result.name}{followers}{said}")
            console.print(text, soft_wrap=True)
    if faults:
        console.print(count(faults, "fault"), style="red")
        raise typer.Exit(1)
