"""What a plugin of each kind must do, as checks that anyone can run.

``mlbench check NAME`` and this project's tests run them, and a third party's pytest can::

    from mlbench import contracts, registry


    def test_my_head_keeps_its_contract():
        contracts.require(registry.find("head", "my_head"))

A plugin of the group ``mlbench.checks`` is a module, named like the kind that it checks. Every
public function of it takes what the registry loads and raises an error if that is wrong.
"""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mlbench import registry
from mlbench.contracts.faults import PluginSource, explain
from mlbench.contracts.outcome import ContractError, NotChecked, Remarked
from mlbench.registry import CORE_PARAMETERS, Kind, Plugin, as_recorded, needs_argument, options

__all__ = ["CheckResult", "ContractError", "check", "checks_of", "require"]

Check = Callable[[Any], None]


def checks_of(kind: Kind) -> tuple[Check, ...]:
    """The public functions of the module with the checks of a kind, in order.

    Raises:
        PluginError: no plugin has checks of this kind.
    """
    module = registry.find("check", kind).load()
    functions = inspect.getmembers_static(module, inspect.isfunction)
    found = [f for name, f in functions if f.__module__ == module.__name__ and name[0] != "_"]
    return tuple(sorted(found, key=lambda f: f.__code__.co_firstlineno))


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
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
    (``timm:NAME``) but was given none passes ``loads`` with a reason. Neither is checked further.
    Whatever a plugin prints meanwhile gives a remark at the end.
    """
    source, faults = PluginSource(plugin), dict[str, str]()
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()):
        results = [_run("loads", lambda: _loads(plugin), source, faults)]
        if results[0].ok and not results[0].reason:
            found = plugin.load()
            for run in checks_of(plugin.kind):
                results.append(_run(run.__name__, partial(run, found), source, faults))
    if lines := printed.getvalue().splitlines():
        reason = f"remark: {len(lines)} lines during the checks, the first: {lines[0]!r}"
        results.append(CheckResult("prints", ok=True, reason=reason))
    return results


def _loads(plugin: Plugin) -> None:
    plugin.load()
    if plugin.kind in ("backbone", "dataset") and needs_argument(plugin):
        raise NotChecked(f"give {plugin.name} an argument, as in {plugin.name}:SOMETHING")
    if plugin.kind in CORE_PARAMETERS:
        as_recorded(options(plugin.load(), plugin.kind), f"{plugin.kind} {plugin.label}")


def require(plugin: Plugin) -> None:
    """Run every check and raise if one fails.

    Raises:
        ContractError: a check fails; the text lists every fault once.
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
