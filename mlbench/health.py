"""Which plugins of other distributions cannot be imported, told without importing them here.

They are imported in a process of their own, so that the one that asks stays small and unharmed;
the answer is kept until the plugin's files change. mlbench's own plugins are its tests' business.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from mlbench import DISTRIBUTION
from mlbench.files import atomic_write
from mlbench.registry import Kind, Plugin
from mlbench.types import PluginError


def broken(found: Sequence[Plugin], cache: Path) -> dict[Plugin, str]:
    """The plugins that fail to import, with the reason.

    Args:
        found: plugins to look at.
        cache: folder in which answers are kept.
    """
    foreign = [p for p in found if p.distribution != DISTRIBUTION]
    file = cache / "plugins.json"
    try:
        known: dict[str, str | None] = json.loads(file.read_text())
    except (OSError, ValueError):  # no answers yet, or not readable: ask again
        known = {}
    keys = {plugin: _fingerprint(plugin) for plugin in foreign}
    unasked = [plugin for plugin in foreign if keys[plugin] not in known]
    if unasked:
        reasons = _ask(unasked)
        known |= {keys[p]: reason for p, reason in zip(unasked, reasons, strict=True)}
        _keep(file, known)
    return {p: reason for p in foreign if (reason := known[keys[p]]) is not None}


def _fingerprint(plugin: Plugin) -> str:
    """Changes when any source file of the plugin's top package does."""
    spec = importlib.util.find_spec(plugin.value.partition(":")[0].partition(".")[0])
    newest = 0
    if spec is not None:
        roots = [Path(p) for p in spec.submodule_search_locations or ()]
        files = [f for root in roots for f in root.rglob("*.py")]
        if spec.origin and Path(spec.origin).exists():
            files.append(Path(spec.origin))
        newest = max((f.stat().st_mtime_ns for f in files), default=0)
    return f"{plugin.distribution} {plugin.version} {plugin.value} {newest} {_installed()}"


@functools.cache
def _installed() -> str:
    """Changes when any distribution does: a plugin may be broken for want of another."""
    names = sorted(f"{d.metadata['Name']} {d.version}" for d in distributions())
    return hashlib.sha256("\n".join([sys.prefix, *names]).encode()).hexdigest()[:16]


def _ask(found: Sequence[Plugin]) -> list[str | None]:
    asked = json.dumps([[p.kind, p.name, p.value, p.distribution, p.version] for p in found])
    answer = subprocess.run(
        [sys.executable, "-m", "mlbench.health"],
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        reasons: list[str | None] = json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # a plugin took the whole process down
        if len(found) == 1:
            return [f"importing it ends the process (exit code {answer.returncode})"]
        return [reason for plugin in found for reason in _ask([plugin])]
    return reasons


def _keep(file: Path, known: dict[str, str | None]) -> None:
    try:
        with atomic_write(file) as part:
            part.write_text(json.dumps(known, indent=1))
    except OSError:
        return  # an answer that cannot be kept is asked for again


def _answer() -> None:
    kind: Kind
    reasons: list[str | None] = []
    for kind, name, value, distribution, version in json.load(sys.stdin):
        try:
            Plugin(kind, name, value, distribution, version).load()
            reasons.append(None)
        except PluginError as error:
            reasons.append(str(error))
    sys.stdout.write("\n" + json.dumps(reasons) + "\n")


if __name__ == "__main__":
    _answer()
