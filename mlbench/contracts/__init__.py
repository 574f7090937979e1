"""What a plugin of each kind must do, as checks that anyone can run.

``mlbench check NAME`` runs them, so do this project's tests, and a third party's pytest can::

    from mlbench import contracts, registry


    def test_my_head_keeps_its_contract():
        contracts.require(registry.find("head", "my_head"))

Every public function of a module ``..._checks`` is a check, and so are those of recipes below: it
takes what the registry loads and raises an error if that is wrong.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from mlbench import registry
from mlbench.contracts import (
    backbone_checks,
    dataset_checks,
    head_checks,
    loss_checks,
)
from mlbench.contracts.outcome import ContractError, NotChecked, ensure
from mlbench.registry import Kind, Plugin, needs_argument
from mlbench.tracks import merge
from mlbench.types import PluginError, Recipe, Settings

__all__ = ["CHECKS", "CheckResult", "ContractError", "check", "require"]

Check = Callable[[Any], None]


def cites_its_paper(recipe: Any) -> None:
    """A Recipe with a title, a summary and BibTeX."""
    ensure(isinstance(recipe, Recipe), f"it is {type(recipe)}, not a Recipe")
    for field in ("title", "bibtex", "summary"):
        ensure(getattr(recipe, field).strip(), f"its {field} is empty")
    ensure(recipe.bibtex.lstrip().startswith("@"), "its bibtex does not begin with @")


def names_plugins_that_exist(recipe: Any) -> None:
    """Backbone, head and loss are registered, and take the options that they are given."""
    for settings in _all_settings(recipe):
        registry.find("backbone", settings.backbone).load()
        registry.assert_known_options("head", settings.head, settings.head_options)
        registry.assert_known_options("loss", settings.loss, settings.loss_options)


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
    return [Settings.model_validate(merge(plain, change)) for change in changes]


def _checks(module: ModuleType) -> tuple[Check, ...]:
    """The public functions that a module defines, in order."""
    functions = inspect.getmembers_static(module, inspect.isfunction)
    found = [f for name, f in functions if f.__module__ == module.__name__ and name[0] != "_"]
    return tuple(sorted(found, key=lambda f: f.__code__.co_firstlineno))


CHECKS: Mapping[Kind, tuple[Check, ...]] = {
    "backbone": _checks(backbone_checks),
    "head": _checks(head_checks),
    "loss": _checks(loss_checks),
    "dataset": _checks(dataset_checks),
    "recipe": (
        cites_its_paper,
        names_plugins_that_exist,
        changes_what_exists,
        says_where_its_scores_are_from,
    ),
}


@dataclass(frozen=True)
class CheckResult:
    """How one check ended; ``reason`` says what is wrong, or why nothing could be checked."""

    name: str
    ok: bool
    reason: str = ""


def check(plugin: Plugin) -> list[CheckResult]:
    """Run every check of a plugin's kind.

    A plugin that cannot be imported fails the check ``loads``. A plugin that takes an argument
    (``timm:NAME``) but was given none passes it with a reason, and is not checked further.
    """
    try:
        found = plugin.load()
    except PluginError as error:
        return [CheckResult("loads", ok=False, reason=str(error))]
    takes_argument = plugin.kind in ("backbone", "dataset")
    if takes_argument and plugin.argument is None and needs_argument(found):
        reason = f"not checked: give {plugin.name} an argument, as in {plugin.name}:SOMETHING"
        return [CheckResult("loads", ok=True, reason=reason)]
    return [CheckResult("loads", ok=True), *(_run(c, found) for c in CHECKS[plugin.kind])]


def require(plugin: Plugin) -> None:
    """Run every check and raise if one fails.

    Raises:
        ContractError: listing every check that failed.
    """
    failed = [result for result in check(plugin) if not result.ok]
    if failed:
        listed = "\n".join(f"  {result.name}: {result.reason}" for result in failed)
        raise ContractError(f"{plugin.kind} {plugin.label} breaks its contract:\n{listed}")


def _run(run: Check, found: Any) -> CheckResult:
    name = run.__name__
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            run(found)
    except NotChecked as reason:
        return CheckResult(name, ok=True, reason=f"not checked: {reason}")
    except ContractError as error:
        return CheckResult(name, ok=False, reason=str(error))
    except Exception as error:
        return CheckResult(name, ok=False, reason=f"{type(error).__name__}: {error}")
    return CheckResult(name, ok=True)
