"""What a plugin of each kind must do, as checks that anyone can run.

``mlbench check NAME`` runs them, so do this project's tests, and a third party's pytest can::

    from mlbench import contracts, registry


    def test_my_head_keeps_its_contract():
        contracts.require(registry.find("head", "my_head"))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlbench.contracts import backbones, datasets, heads, losses, recipes
from mlbench.contracts.outcome import ContractError, NotChecked
from mlbench.registry import Kind, Plugin, asks_for_argument
from mlbench.types import PluginError

__all__ = ["CHECKS", "CheckResult", "ContractError", "check", "require"]

CHECKS: Mapping[Kind, tuple[Callable[[Any], None], ...]] = {
    "backbone": backbones.CHECKS,
    "head": heads.CHECKS,
    "loss": losses.CHECKS,
    "dataset": datasets.CHECKS,
    "recipe": recipes.CHECKS,
}
"""Kind -> checks; each takes what the registry loads and raises an error if that is wrong."""

_GIVEN: Mapping[Kind, tuple[str, ...]] = {"backbone": (), "dataset": ("root", "cache")}
"""What the core gives to factories of kinds whose names may carry an argument."""


@dataclass(frozen=True)
class CheckResult:
    """How one check ended; ``reason`` says what is wrong, or why nothing could be checked."""

    name: str
    ok: bool
    reason: str = ""


def check(plugin: Plugin) -> list[CheckResult]:
    """Run every check of a plugin's kind.

    A plugin that cannot be imported fails one check, ``loads``; one that takes an argument
    (``timm:NAME``) and was given none passes it with a reason.
    """
    try:
        found = plugin.load()
    except PluginError as error:
        return [CheckResult("loads", ok=False, reason=str(error))]
    given = _GIVEN.get(plugin.kind)
    if plugin.argument is None and given is not None and asks_for_argument(found, given):
        reason = f"not checked: give {plugin.name} an argument, as in {plugin.name}:SOMETHING"
        return [CheckResult("loads", ok=True, reason=reason)]
    return [CheckResult("loads", ok=True), *(_run(c, found) for c in CHECKS[plugin.kind])]


def require(plugin: Plugin) -> None:
    """Run every check and raise if one fails.

    Raises:
        ContractError: listing all that failed.
    """
    failed = [result for result in check(plugin) if not result.ok]
    if failed:
        listed = "\n".join(f"  {result.name}: {result.reason}" for result in failed)
        raise ContractError(f"{plugin.kind} {plugin.label} breaks its contract:\n{listed}")


def _run(run: Callable[[Any], None], found: Any) -> CheckResult:
    name = run.__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(found)
    except NotChecked as reason:
        return CheckResult(name, ok=True, reason=f"not checked: {reason}")
    except (ContractError, AssertionError) as error:
        return CheckResult(name, ok=False, reason=str(error))
    except Exception as error:
        return CheckResult(name, ok=False, reason=f"{type(error).__name__}: {error}")
    return CheckResult(name, ok=True)
