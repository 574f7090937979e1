"""``mlbench show NAME``: print a plugin's card."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import console
from mlbench.registry import Plugin

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
