"""``mlbench profile``: the cost of heads apart from their backbone, by the number of labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic_core import to_json

from mlbench import registry
from mlbench.cli.console import AsJson, console, plain_table
from mlbench.types import MeasureError, PluginError, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.types import Recipe, Settings
    from mlbench_tools.costs.counting import Counts

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
        typer.echo(to_json({"image_size": image_size, "backbones": found}, indent=1))
    else:
        _show(found, image_size, f"the {track} track" if track else "their recipes")


# ---------------------------------------------------------------------------------------- counting
@dataclass(frozen=True)
class HeadProfile:
    """Cost of a head at a number of labels.

    Attributes:
        cost: None if the head cannot have so many labels, or its work cannot be counted.
        refusal: why it was not counted; empty otherwise.
    """

    method: str
    labels: int
    cost: Counts | None
    refusal: str = ""


@dataclass(frozen=True)
class BackboneProfile:
    """Cost of a backbone, and of the heads on it."""

    backbone: str
    cost: Counts
    heads: tuple[HeadProfile, ...]


def count_heads(
    heads: Mapping[str, Settings], backbones: Sequence[str], labels: Sequence[int], image_size: int
) -> list[BackboneProfile]:
    """Profile every combination of head, backbone and number of labels.

    Raises:
        PluginError: a plugin is unknown or broken. A case that a head refuses is in its profile.
        MeasureError: the work of a backbone cannot be counted.
    """
    from mlbench_tools.costs.counting import count_backbone, count_head

    def profile_of(method: str, settings: Settings, labels: int) -> HeadProfile:
        try:
            return HeadProfile(method, labels, count_head(settings, labels))
        except (PluginError, MeasureError) as error:
            return HeadProfile(method, labels, None, str(error))

    found = []
    for name in backbones:
        cost = count_backbone(name, image_size).counts
        place = {"backbone": name, "image_size": image_size}
        placed = {method: one.model_copy(update=place) for method, one in heads.items()}
        profiles = (profile_of(method, one, n) for method, one in placed.items() for n in labels)
        found.append(BackboneProfile(name, cost, tuple(profiles)))
    return found


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
        on_coco = (
            f"{score.value} mAP ({score.note}; {score.status})"
            for score in recipe.reported
            if score.dataset == "coco" and score.metric == "mAP"
        )
        reported = next(on_coco, "none that could be verified")
        row = (f"`{plugin.name}`", paper, recipe.summary, _head_cost(recipe), reported)
        rows.append(tuple(cell.replace("|", "&#124;") for cell in row))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _head_cost(recipe: Recipe) -> str:
    from mlbench_tools.costs.counting import count_head

    try:
        cost = count_head(recipe.settings.model_copy(update=GROUND), LABELS)
    except PluginError:
        return "not at this number"
    return f"{cost.parameters / 1e6:.1f} M, {cost.gmacs:.2f} GMACs"


def _numbers(flag: str, text: str) -> list[int]:
    """Read the numbers of a flag in their order, each once."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) for part in parts):
        raise SuiteError(f"{flag} {text}: give numbers from 1, as in {flag} 20,80")
    return list(dict.fromkeys(map(int, parts)))


def _show(found: Sequence[BackboneProfile], image_size: int, source: str) -> None:
    numbers = ("labels", "M parameters", "GMACs", "of all GMACs")
    for one in found:
        parameters, gmacs = _cells(one.cost)
        text = f"{one.backbone} at {image_size}: {parameters} M parameters, {gmacs} GMACs"
        console.print(text, style="bold", highlight=False)
        table = plain_table(("method", *numbers), numbers)
        for head in one.heads:
            cells = ("-", "-", "-")
            if head.cost:
                share = head.cost.gmacs / (head.cost.gmacs + one.cost.gmacs)
                cells = (*_cells(head.cost), f"{share:.1%}")
            table.add_row(head.method, f"{head.labels:,}", *cells)
        console.print(table)
        for head in one.heads:
            if head.refusal:
                text = f"- {head.method} at {head.labels} labels: {head.refusal}"
                console.print(text, highlight=False, soft_wrap=True)
    text = f"{GMACS} Heads have the options of {source}."
    console.print(text, highlight=False, soft_wrap=True)


def _cells(cost: Counts) -> tuple[str, str]:
    """Millions of parameters, and GMACs."""
    return f"{cost.parameters / 1e6:,.2f}", f"{cost.gmacs:,.3f}"
