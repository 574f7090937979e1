"""What every recipe must say."""

from __future__ import annotations

from typing import Any

from mlbench import registry
from mlbench.contracts.outcome import ensure
from mlbench.tracks import merge
from mlbench.types import Recipe, Settings


def cites_its_paper(recipe: Any) -> None:
    """It is a Recipe with a title, a summary and BibTeX."""
    ensure(isinstance(recipe, Recipe), f"it is {type(recipe)}, not a Recipe")
    for field in ("title", "bibtex", "summary"):
        ensure(getattr(recipe, field).strip(), f"its {field} is empty")
    ensure(recipe.bibtex.lstrip().startswith("@"), "its bibtex does not begin with @")


def names_plugins_that_exist(recipe: Any) -> None:
    """Backbone, head and loss are registered, and take the options that they are given."""
    for settings in _all_settings(recipe):
        registry.find("backbone", settings.backbone)
        registry.assert_known_options("head", settings.head, settings.head_options)
        registry.assert_known_options("loss", settings.loss, settings.loss_options)


def changes_what_exists(recipe: Any) -> None:
    """Changes for a data set or a track give valid settings, and each data set is known."""
    for dataset in recipe.per_dataset:
        registry.find("dataset", dataset)
    _all_settings(recipe)


def says_where_its_scores_are_from(recipe: Any) -> None:
    """Each reported score is a percentage with a source."""
    for score in recipe.reported:
        what = f"{score.metric} {score.value} on {score.dataset}"
        ensure(score.source.strip(), f"{what} has no source")
        ensure(0 < score.value < 100, f"{what} is no percentage")


def _all_settings(recipe: Recipe) -> list[Settings]:
    """The recipe's settings, and those with each of its changes."""
    changes = [{}, *recipe.per_dataset.values(), *recipe.tuned.values()]
    plain = recipe.settings.model_dump()
    return [Settings.model_validate(merge(plain, change)) for change in changes]
