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
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch

from mlbench import registry
from mlbench.contracts import backbone_checks, dataset_checks, head_checks, loss_checks
from mlbench.contracts.faults import PluginSource, explain
from mlbench.contracts.outcome import ContractError, NotChecked, Remarked, ensure
from mlbench.registry import Kind, Plugin, needs_argument
from mlbench.tracks import merge
from mlbench.types import Recipe, Settings

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
        registry.find("backbone", settings.backbone)
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
    """How one check ended.

    Attributes:
        name: of the check.
        ok: whether it passed.
        reason: what is wrong, what to know although nothing is, or why nothing could be checked.
        line: ``file:line`` of the plugin's source that is wrong; empty if unknown.
        cause: the earlier check that found the same fault; empty if there is none.
    """

    name: str
    ok: bool
    reason: str = ""
    line: str = ""
    cause: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.line, self.reason)))


def check(plugin: Plugin) -> list[CheckResult]:
    """Run every check of a plugin's kind.

    A plugin that cannot be imported fails the check ``loads``. A plugin that takes an argument
    (``timm:NAME``) but was given none passes it with a reason. Neither is checked further. What a
    plugin prints meanwhile is remarked at the end.
    """
    source, faults = PluginSource(plugin), dict[str, str]()
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()):
        results = [_run("loads", lambda: _loads(plugin), source, faults)]
        if results[0].ok and not results[0].reason:
            found = plugin.load()
            for run in CHECKS[plugin.kind]:
                results.append(_run(run.__name__, partial(run, found), source, faults))
    if lines := printed.getvalue().splitlines():
        reason = f"remark: {len(lines)} lines during the checks, the first: {lines[0]!r}"
        results.append(CheckResult("prints", ok=True, reason=reason))
    return results


def _loads(plugin: Plugin) -> None:
    found = plugin.load()
    takes_argument = plugin.kind in ("backbone", "dataset") and plugin.argument is None
    if takes_argument and needs_argument(found):
        raise NotChecked(f"give {plugin.name} an argument, as in {plugin.name}:SOMETHING")


def require(plugin: Plugin) -> None:
    """Run every check and raise if one fails.

    Raises:
        ContractError: listing every fault once.
    """
    failed = [result for result in check(plugin) if not (result.ok or result.cause)]
    if failed:
        listed = "\n".join(f"  {result.name}: {result}" for result in failed)
        raise ContractError(f"{plugin.kind} {plugin.label} breaks its contract:\n{listed}")


def _run(
    name: str, run: Callable[[], None], source: PluginSource, faults: dict[str, str]
) -> CheckResult:
    """Carry out a check; ``faults`` holds the check that found each fault first."""
    disabled = logging.root.manager.disable
    logging.disable()  # torch logs what it raises, too
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            run()
    except NotChecked as refusal:
        return CheckResult(name, ok=True, reason=f"not checked: {refusal}")
    except Remarked as remark:
        line = source.line_of_definition()
        return CheckResult(name, ok=True, reason=f"remark: {remark}", line=line)
    except (Exception, SystemExit) as error:
        line, reason, key = explain(error, source, run)
        first = faults.setdefault(key, name)
        return CheckResult(name, False, reason, line, cause="" if first == name else first)
    finally:
        logging.disable(disabled)
    return CheckResult(name, ok=True)
