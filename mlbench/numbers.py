"""The numbers of the code that makes a run, which decide whether its record still counts as done.

``NUMBERS`` of the core and of each plugin's module is raised by hand when a change of the code
changes results, and for nothing else: a record outlives a renamed variable, not a fixed bug.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.abc import InspectLoader
from typing import Any

from mlbench import registry
from mlbench.files import source_digest, source_files
from mlbench.registry import Kind, Plugin
from mlbench.types import RunRecord, RunSpec

NUMBERS = 5
"""The core's number. ``tests/test_numbers.py`` is the reminder to raise it."""
OURS = ("mlbench", "mlbench_plugins")

_DECLARED = re.compile(r"^NUMBERS\s*(?::\s*int\s*)?=\s*(\d+)", re.MULTILINE)


def numbers_of(spec: RunSpec) -> dict[str, int]:
    """The numbers of the installed code that carries out a run: ``{"core": 5, "head gap": 1}``.

    Raises:
        PluginError: a plugin is not installed.
    """
    return {"core": NUMBERS} | {f"{p.kind} {p.name}": _declared(p) for p in plugins_of(spec)}


def plugins_of(spec: RunSpec) -> list[Plugin]:
    """The backbone, the head, the loss and the data set of a run.

    Raises:
        PluginError: one is not installed, or two distributions claim it.
    """
    kinds: tuple[Kind, ...] = ("backbone", "head", "loss")
    parts = [registry.find(kind, getattr(spec.settings, kind)) for kind in kinds]
    return [*parts, registry.find("dataset", spec.dataset)]


def outdated(numbers: Mapping[str, int]) -> str:
    """Why the installed code makes other numbers than a record's: ``core numbers 1, now 2``.

    The text is empty if it makes the same numbers. A plugin that is not installed is not counted.
    """
    here = ((name, number, installed(name)) for name, number in numbers.items())
    changed = (one for one in here if one[2] not in (None, one[1]))
    return "; ".join(f"{name} numbers {number}, now {now}" for name, number, now in changed)


def changed_packages(recorded: Any) -> list[str]:
    """Which plugins of a record's ``environment.plugins`` are of another package here, or none."""
    changed = []
    for name, package in recorded.items() if isinstance(recorded, Mapping) else ():
        here = " and ".join(plugin.package for plugin in _named(name)) or "none"
        if here != package:
            changed.append(f"{name} of {package}, but {here} is installed; install {package}")
    return changed


def sources_of(spec: RunSpec) -> str:
    """Digests of the source files of a run's packages: ``acme 0123456789abcdef, mlbench ...``."""
    modules = {"mlbench", *(p.value.partition(":")[0].partition(".")[0] for p in plugins_of(spec))}
    return ", ".join(f"{name} {source_digest(name)[:16]}" for name in sorted(modules))


def edited(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """Third-party packages that changed since records were made; ours raise their numbers."""
    parts = {part for record in records for part in (record.sources or "").split(", ")}
    then = {tuple(part.split()) for part in parts if " " in part and part.split()[0] not in OURS}
    return tuple(sorted({name for name, old in then if source_digest(name)[:16] != old}))


def installed(name: str) -> int | None:
    """The number of ``core`` or of a plugin, ``head gap``; None if it is not installed."""
    if name == "core":
        return NUMBERS
    matching = _named(name)
    return _declared(matching[0]) if len(matching) == 1 else None


def _named(name: str) -> list[Plugin]:
    """The installed plugins of this kind and name, ``head gap``."""
    return [plugin for plugin in registry.plugins() if f"{plugin.kind} {plugin.name}" == name]


def _declared(plugin: Plugin) -> int:
    module, _, attribute = plugin.value.partition(":")
    return _declared_in(module, attribute.partition(".")[0], tuple(sys.path))


@functools.cache
def _declared_in(module: str, name: str, path: tuple[str, ...]) -> int:
    """``NUMBERS`` of a module, or 1; read from its source, as an import would load torch.

    If the module imports ``name`` from elsewhere, the raises in all modules of its package count.
    """
    try:
        found = importlib.util.find_spec(module)
        loader = found.loader if found else None
        source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
        sources = [source or ""]
        if not re.search(rf"^(class |def )?{name}\b", sources[0], re.MULTILINE):
            sources = [file.read_text() for _, file in source_files(module.partition(".")[0])]
    except Exception:  # a package above the module may raise anything when it is imported
        return 1
    declared = filter(None, map(_DECLARED.search, sources))
    return 1 + sum(int(number[1]) - 1 for number in declared)
