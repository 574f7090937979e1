"""``mlbench list``, ``show`` and ``check``: all plugins, the card of one, and its faults."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import AsJson, console, errors, plain_table
from mlbench.registry import EVERY_KIND, PLURALS, Plugin
from mlbench.text import count, unknown
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.types import DatasetCard, Recipe

LISTED = ("orders", "released")
"""Fields shown by their names alone: orders of labels, files that `mlbench import` reads."""
LONG = {"bibtex", "deviations", "archives", "editions", "steps", "validation", *LISTED}
"""Fields shown separately, or by `mlbench data`."""

ALWAYS: Any = dict.fromkeys(("backbone", "loss", "image_size", "epochs", "batch_size"), True) | {
    "optimizer": {"name", "lr", "weight_decay"},
    "schedule": {"name"},
}
"""Settings of a recipe that are shown even where they are defaults."""


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


def show(
    name: Annotated[str, typer.Argument(help="A backbone, head, loss, data set or recipe.")],
) -> None:
    """Print a plugin's card: citation, options with defaults, distribution and version."""
    for plugin in registry.find_all(name):
        console.print(
            Text.assemble(
                (f"{plugin.kind} {plugin.label}  ", "bold"),
                (f"{plugin.package}  {plugin.value}", "dim"),
            )
        )
        _card(plugin)
        console.print()


def _card(plugin: Plugin) -> None:
    loaded = plugin.load()
    if plugin.kind == "recipe":
        _value(loaded)
        return
    if text := loaded.__doc__:  # not inherited from a base class
        console.print(inspect.cleandoc(text))
    if card := registry.dataset_card(plugin):
        console.print()
        _value(card)
    if options := registry.options(loaded, plugin.kind):
        console.print("\nOptions (with their defaults):")
        for name, default in options.items():
            console.print(f"  {name} = {default!r}")


def _value(card: Recipe | DatasetCard) -> None:
    """Print the fields of a recipe or a data set's card that differ from their defaults."""
    import yaml  # not at the top, as `mlbench --help` needs none

    from mlbench.tracks import merge

    plain = card.model_dump(mode="json", exclude_defaults=True, exclude=LONG)
    if used := getattr(card, "settings", None):
        plain["settings"] = merge(used.model_dump(mode="json", include=ALWAYS), plain["settings"])
    for name in LISTED:
        if of_it := getattr(card, name, None):
            plain[name] = [one if isinstance(one, str) else one.title for one in of_it]
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    console.print(text, end="", highlight=False)
    if deviations := getattr(card, "deviations", ()):
        what = "deviations from the authors' code:"
        console.print(what, *deviations, sep="\n- ", highlight=False)
    console.print(f"\n{card.bibtex}".rstrip(), highlight=False)


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
