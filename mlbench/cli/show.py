"""``mlbench show NAME``: print a plugin's card."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import console
from mlbench.registry import Plugin
from mlbench.text import count

if TYPE_CHECKING:
    from mlbench.types import DatasetCard, Recipe


def show(
    name: Annotated[str, typer.Argument(help="A backbone, head, loss, data set or recipe.")],
) -> None:
    """Print a plugin's card: citation, options with defaults, distribution and version."""
    for plugin in registry.find_all(name):
        console.print(
            Text.assemble(
                (f"{plugin.kind} {plugin.label}  ", "bold"),
                (f"{plugin.distribution} {plugin.version}  {plugin.value}", "dim"),
            )
        )
        _card(plugin)
        console.print()


def _card(plugin: Plugin) -> None:
    loaded = plugin.load()
    if plugin.kind == "recipe":
        _recipe(loaded)
        return
    if text := loaded.__doc__:  # not that of a class above it
        console.print(inspect.cleandoc(text))
    if card := registry.dataset_card(plugin):
        _dataset(card)
    options = registry.options(loaded, plugin.kind)
    if options:
        console.print("\nOptions (with their defaults):")
        for name, default in options.items():
            console.print(f"  {name} = {default!r}")


def _recipe(recipe: Recipe) -> None:
    console.print(recipe.title, style="italic")
    console.print(recipe.summary)
    console.print("\nSettings of the published track, where they differ from the defaults:")
    _fields(recipe.settings.model_dump(exclude_defaults=True))
    for dataset, changes in recipe.per_dataset.items():
        console.print(f"  on {dataset}:")
        _fields(changes, indent=4)
    for track, changes in recipe.tuned.items():
        console.print(f"\nTuned for the {track} track:")
        _fields(changes)
    if recipe.reported:
        console.print("\nReported:")
    for score in recipe.reported:
        note = f" ({score.note})" if score.note else ""
        number = f"{score.dataset} {score.metric} {score.value}{note}"
        console.print(f"  {number}  [{score.status}: {score.source}]")
    for released in recipe.released:
        console.print(f"\n`mlbench import` reads: {released.title}")
    if recipe.deviations:
        console.print("\nDeviations from the authors' code:")
    for deviation in recipe.deviations:
        console.print(f"  - {deviation}")
    if recipe.bibtex:
        console.print("\n" + recipe.bibtex.strip())


def _dataset(card: DatasetCard) -> None:
    console.print(f"\n{card.title}, {card.licence}, {card.home}")
    if card.labels:
        orders = (
            f", in circulation in these orders: {', '.join(card.orders)}" if card.orders else ""
        )
        console.print(f"Labels: {card.labels}{orders}")
    if card.splits:
        console.print("Official sizes:")
    for name, split in card.splits.items():
        positives = f", {count(split.positives, 'positive')}" if split.positives else ""
        console.print(f"  {name}: {count(split.images, 'image')}{positives}")
    if card.family:
        console.print(f"Recipes call it {card.family}")
    if card.identities:
        console.print(f"Known editions: {', '.join(card.identities.values())}")
    if card.notes:
        console.print(card.notes)
    if card.bibtex:
        console.print("\n" + card.bibtex.strip())


def _fields(fields: dict[str, Any], indent: int = 2) -> None:
    for name, value in fields.items():
        console.print(" " * indent + f"{name}: {value}")
