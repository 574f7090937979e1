"""``mlbench show NAME``: print a plugin's card."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import console, plain_table
from mlbench.registry import Plugin

if TYPE_CHECKING:
    from mlbench.types import DatasetCard, Recipe, Value

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
    """Print a plugin's card: citation, options with defaults, distribution and version.

    `mlbench show settings` prints every setting of a run, `show suite` every field of a suite.
    """
    if name in ("settings", "suite") and not registry.kinds_of(name):
        _print_fields(name)
        return
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


def _print_fields(name: str) -> None:
    from mlbench.data.mixing import MIXINGS
    from mlbench.data.transforms import STEPS
    from mlbench.suite import Suite
    from mlbench.types import Settings

    table = plain_table((name, "default", ""))
    rows = [*_fields(Suite if name == "suite" else Settings)]
    for kind, known in (("augmentation", STEPS), ("mixing", MIXINGS)) if name == "settings" else ():
        for one, step in known.items():
            rows += [(f"{kind}: {one}", "", _first_sentence(step.__doc__)), *_fields(step, "  ")]
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)


def _fields(model: type[Value], before: str = "") -> Iterator[tuple[str, str, str]]:
    """The fields of a model and of those in it: dotted name, default, sentence of the docstring."""
    docs = "\n".join(inspect.cleandoc(one.__doc__ or "") for one in model.__mro__)
    entries = re.findall(r"^ {4}(\w[^:]*): (.*(?:\n {8}.*)*)", docs, re.MULTILINE)
    said = {name: text for names, text in entries for name in names.split(", ")}
    for name, field in model.model_fields.items():
        if hasattr(field.default, "model_dump"):
            yield from _fields(type(field.default), f"{before}{name}.")
        else:
            default = "" if field.is_required() else str(field.default)
            yield before + name, default, _first_sentence(said.get(name))


def _first_sentence(text: str | None) -> str:
    first = re.split(r"\.\s*$|\.\s+(?=[A-Z`])", text or "")[0]
    return " ".join(first.replace("``", "").split())
