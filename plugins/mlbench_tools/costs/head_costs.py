"""What a method's card says beside its recipe: its head's cost; and the table of all methods."""

from __future__ import annotations

import re
from typing import NamedTuple

from mlbench import registry
from mlbench.types import PluginError, Recipe, Settings
from mlbench_tools.costs.profiling import Trunk

LABELS = 80
"""Labels that costs are given for: COCO's."""
COMMON = {"backbone": "resnet101", "image_size": 448}
"""What all heads of the table stand on, whatever their papers chose: their costs compare."""


class HeadCost(NamedTuple):
    """Parameters in millions, and 1e9 multiply-accumulates an image in evaluation."""

    parameters: float
    gmacs: float


def head_cost(settings: Settings, labels: int = LABELS) -> HeadCost:
    """What a head costs with this many labels, on its backbone's maps; found without memory.

    GMACs are taken from a batch of two and halved, as in the records: work on labels alone is
    shared.

    Raises:
        PluginError: a plugin is unknown or cannot serve the case.
        MeasureError: part of the work would have been counted as 0.
    """
    cost = Trunk(settings.backbone, settings.image_size).head(settings, labels)
    return HeadCost(cost.parameters / 1e6, cost.gmacs)


def method_table() -> str:
    """Every method with a recipe as a Markdown table; costs are those on ``COMMON``."""
    ground = f"{LABELS} labels, {COMMON['backbone']} at {COMMON['image_size']}"
    head = (
        f"| method | paper | what is new | head ({ground}) | reported on COCO |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    return head + "".join(_line(plugin) for plugin in registry.plugins("recipe"))


def _line(plugin: registry.Plugin) -> str:
    recipe = plugin.load()
    assert isinstance(recipe, Recipe)
    try:
        cost = head_cost(recipe.settings.model_copy(update=COMMON))
        costs = f"{cost.parameters:.1f} M, {cost.gmacs:.2f} GMACs"
    except PluginError:
        costs = "not at this number"
    cells = (f"`{plugin.name}`", _paper(recipe), recipe.summary, costs, _best(recipe))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _paper(recipe: Recipe) -> str:
    year = re.search(r"year\s*=\s*\{?(\d{4})", recipe.bibtex)
    return f"{recipe.title}{f', {year[1]}' if year else ''}"


def _best(recipe: Recipe) -> str:
    """The first mAP on COCO that the card reports, with what it was made with."""
    for score in recipe.reported:
        if score.dataset == "coco" and score.metric == "mAP":
            return f"{score.value} mAP ({score.note}; {score.status})"
    return "none that could be verified"
