"""What every recipe must say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlbench import registry
from mlbench.contracts.outcome import ensure
from mlbench.registry import Kind
from mlbench.types import Recipe, Settings

GIVEN = ("spec", "labels")
"""Parameters of factories that the core fills in."""


def cites_its_paper(recipe: Any) -> None:
    """A Recipe with a title, a summary and BibTeX."""
    ensure(isinstance(recipe, Recipe), f"it is {type(recipe)}, not a Recipe")
    for field in ("title", "bibtex", "summary"):
        ensure(getattr(recipe, field).strip(), f"its {field} is empty")
    ensure(recipe.bibtex.lstrip().startswith("@"), "its bibtex does not begin with @")


def names_plugins_that_exist(recipe: Any) -> None:
    """Backbone, head and loss are registered, and take the options that they are given."""
    for settings in _all_settings(recipe):
        parts: tuple[tuple[Kind, str, Mapping[str, Any]], ...] = (
            ("backbone", settings.backbone, {}),
            ("head", settings.head, settings.head_options),
            ("loss", settings.loss, settings.loss_options),
        )
        for kind, name, options in parts:
            known = registry.options(registry.find(kind, name).load(), GIVEN)
            strange = sorted(set(options) - set(known))
            ensure(not strange, f"{kind} {name} has no options {strange}; known: {sorted(known)}")


def changes_what_exists(recipe: Any) -> None:
    """What differs for a data set or a track makes valid settings, for a known data set."""
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
    return [Settings.model_validate(_merged(plain, change)) for change in changes]


def _merged(plain: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**plain, **change}
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(plain.get(key), Mapping):
            merged[key] = _merged(plain[key], value)
    return merged
