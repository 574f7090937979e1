"""``mlbench profile``: the cost of heads apart from their backbone, by the number of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mlbench import registry
from mlbench.cli.console import AsJson, console, plain_table
from mlbench.types import MeasureError, PluginError, SuiteError, Track, Value

if TYPE_CHECKING:
    from mlbench.types import Recipe, Settings

LABELS = 80
"""Labels of the methods' table: COCO's."""
GROUND = {"backbone": "resnet101", "image_size": 448}
"""Backbone and image size of all heads of the table, so that their costs compare."""

GMACS = (
    "Counted from shapes, without a device; `mlbench measure` measures time. GMACs: 1e9 "
    "multiply-accumulates an image, from a batch of two, as in the records."
)


def profile(
    plugins: Annotated[
        str | None, typer.Option(help="Methods and backbones, separated by commas.")
    ] = None,
    classes: Annotated[str, typer.Option(help="Comma-separated label counts.")] = "20,80,500",
    backbones: Annotated[
        str | None, typer.Option(help="Backbones, separated by commas. Default: resnet101.")
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=1, help="Side length of the images in pixels.")
    ] = 448,
    track: Annotated[
        Track | None,
        typer.Option(help="Options of the heads as on this track's boards. Default: the papers'."),
    ] = None,
    cards: Annotated[
        bool, typer.Option("--cards", help="Print a Markdown table of all methods' cards.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count parameters and GMACs of heads without their backbone, without weights or data."""
    if cards:
        typer.echo(method_table(), nl=False)
        return
    if plugins is None:
        raise SuiteError("no method to profile; name some, as in --plugins ssgrl,gap")
    labels = _numbers("--classes", classes)

    from mlbench_tools.costs.asked import DEFAULT_BACKBONE, read_models

    heads, trunks = read_models(plugins, backbones, track)
    found = count_heads(heads, trunks or (DEFAULT_BACKBONE,), labels, image_size)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        _show(found, f"the {track} track" if track else "their recipes")


# ---------------------------------------------------------------------------------------- counting
class PartCost(Value):
    """Cost of a backbone or a head. GMACs are 1e9 multiply-accumulates an image."""

    parameters: int
    gmacs: float


class HeadProfile(Value):
    """Cost of a head at a number of labels.

    Attributes:
        cost: None if the head cannot have so many labels, or its work cannot be counted.
        refusal: why it was not counted; empty otherwise.
    """

    method: str
    labels: int
    cost: PartCost | None
    refusal: str = ""


class BackboneProfile(Value):
    """Cost of a backbone, and of the heads on it."""

    backbone: str
    cost: PartCost
    heads: tuple[HeadProfile, ...]


class Profile(Value):
    """All counts."""

    image_size: int
    backbones: tuple[BackboneProfile, ...]


def count_heads(
    heads: Mapping[str, Settings], backbones: Sequence[str], labels: Sequence[int], image_size: int
) -> Profile:
    """Profile every combination of head, backbone and number of labels.

    Raises:
        PluginError: a plugin is unknown or broken. A case that a head refuses is in its profile.
        MeasureError: the work of a backbone cannot be counted.
    """
    from mlbench_tools.costs.counting import count_backbone

    found = []
    for name in backbones:
        cost = PartCost(**count_backbone(name, image_size).counts._asdict())
        place = {"backbone": name, "image_size": image_size}
        profiles = tuple(
            _head_profile(method, settings.model_copy(update=place), n)
            for method, settings in heads.items()
            for n in labels
        )
        found.append(BackboneProfile(backbone=name, cost=cost, heads=profiles))
    return Profile(image_size=image_size, backbones=tuple(found))


def _head_profile(method: str, settings: Settings, labels: int) -> HeadProfile:
    from mlbench_tools.costs.counting import count_head

    cost, refusal = None, ""
    try:
        cost = PartCost(**count_head(settings, labels)._asdict())
    except (PluginError, MeasureError) as error:
        refusal = str(error)
    return HeadProfile(method=method, labels=labels, cost=cost, refusal=refusal)


# ------------------------------------------------------------------------------------- the README's
def method_table() -> str:
    """Return a Markdown table of all heads with a recipe, counted on ``GROUND``."""
    from mlbench.tracks import recipe_of

    ground = f"{LABELS} labels, {GROUND['backbone']} at {GROUND['image_size']}"
    rows: list[tuple[str, ...]] = [
        ("method", "paper", "what is new", f"head ({ground})", "reported on COCO"),
        ("---",) * 5,
    ]
    for plugin in registry.plugins("recipe"):
        if "head" not in registry.kinds_of(plugin.name):
            continue  # the recipe of a loss
        recipe = recipe_of(plugin.name)
        year = re.search(r"year\s*=\s*\{?(\d{4})", recipe.bibtex)
        paper = f"{recipe.title}, {year[1]}" if year else recipe.title
        row = (f"`{plugin.name}`", paper, recipe.summary, _head_cost(recipe), _reported(recipe))
        rows.append(tuple(cell.replace("|", "&#124;") for cell in row))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _head_cost(recipe: Recipe) -> str:
    from mlbench_tools.costs.counting import count_head

    try:
        cost = count_head(recipe.settings.model_copy(update=GROUND), LABELS)
    except PluginError:
        return "not at this number"
    return f"{cost.parameters / 1e6:.1f} M, {cost.gmacs:.2f} GMACs"


def _reported(recipe: Recipe) -> str:
    """The first mAP on COCO that the card reports."""
    for score in recipe.reported:
        if score.dataset == "coco" and score.metric == "mAP":
            return f"{score.value} mAP ({score.note}; {score.status})"
    return "none that could be verified"


def _numbers(flag: str, text: str) -> list[int]:
    """Read the numbers of a flag in their order, each once."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise SuiteError(f"{flag} {text}: give numbers from 1, as in {flag} 20,80")
    return list(dict.fromkeys(map(int, parts)))


def _show(found: Profile, source: str) -> None:
    for one in found.backbones:
        costs = ", ".join(f"{number} {unit}" for unit, number in _costs(one.cost).items())
        console.print(Text(f"{one.backbone} at {found.image_size}: {costs}", style="bold"))
        console.print(_table(one))
        for head in one.heads:
            if head.refusal:
                text = f"- {head.method} at {head.labels} labels: {head.refusal}"
                console.print(Text(text), soft_wrap=True)
    console.print(Text(f"{GMACS} Heads have the options of {source}."), soft_wrap=True)


def _table(one: BackboneProfile) -> Table:
    units = list(_costs(one.cost))
    numbers = ("labels", *units, "of all GMACs")
    table = plain_table(("method", *numbers), numbers)
    for head in one.heads:
        costs, share = {}, "-"
        if head.cost:
            costs = _costs(head.cost)
            share = f"{head.cost.gmacs / (head.cost.gmacs + one.cost.gmacs):.1%}"
        cells = (costs.get(unit, "-") for unit in units)
        table.add_row(Text(head.method), f"{head.labels:,}", *cells, share)
    return table


def _costs(cost: PartCost) -> dict[str, str]:
    """Unit -> number."""
    return {"M parameters": f"{cost.parameters / 1e6:,.2f}", "GMACs": f"{cost.gmacs:,.3f}"}
