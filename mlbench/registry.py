"""Find plugins by their entry points, which are the only way to add one.

A plugin is imported when it is loaded and not before, so listing names is fast.
A name may carry an argument after a colon: ``timm:resnet26`` is the plugin ``timm`` called with
``"resnet26"`` first.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mlbench import DISTRIBUTION
from mlbench.text import one_of, unknown
from mlbench.types import MlbenchError, PluginError

if TYPE_CHECKING:
    from mlbench.types import DatasetCard

Kind = Literal[
    "backbone",
    "head",
    "loss",
    "dataset",
    "recipe",
    "command",
    "forecast",
    "follow_up",
    "format",
    "runtime",
    "executor",
    "check",
    "tracker",
]
EVERY_KIND: tuple[Kind, ...] = get_args(Kind)
KINDS: tuple[Kind, ...] = ("backbone", "head", "loss", "dataset", "recipe")
"""The kinds that are axes of a matrix."""
PLURALS: dict[Kind, str] = {kind: f"{kind}s" for kind in EVERY_KIND} | {"loss": "losses"}

CORE_PARAMETERS: dict[Kind, tuple[str, ...]] = {
    "backbone": ("weights", "image_size"),
    "head": ("spec", "labels"),
    "loss": ("labels",),
    "dataset": ("root", "cache"),
}
"""Parameters of the factories of a kind that the core passes; the others are options."""

ALIKE = ((int, float), (str,), (bool,), (list, tuple), (dict,))
"""Groups of types: an option's value may have any type of the group of its default."""


@dataclass(frozen=True)
class Plugin:
    """A name registered by a distribution; ``value`` is ``module:attribute``, or a module."""

    kind: Kind
    name: str
    value: str
    distribution: str
    version: str
    argument: str | None = None

    @property
    def package(self) -> str:
        """The distribution and its version, as records name them: ``acme 1.0``."""
        return f"{self.distribution} {self.version}"

    @property
    def label(self) -> str:
        """The name and its argument, as a user writes them."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"

    def load(self) -> Any:
        """Import the plugin; an argument is bound to the first parameter.

        Raises:
            PluginError: the import failed, whatever the reason.
        """
        module, _, attribute = self.value.partition(":")
        try:
            names = attribute.split(".") if attribute else ()
            loaded: Any = functools.reduce(getattr, names, importlib.import_module(module))
            if self.kind in CORE_PARAMETERS and not callable(loaded):
                raise TypeError(f"a {type(loaded).__name__} is no class; write module:Class")
        except (Exception, SystemExit) as error:  # a module may call sys.exit
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.package} cannot be imported ({self.value}): "
                f"{type(error).__name__}: {error}. Fix or uninstall {self.distribution}; "
                "everything else works without it."
            ) from error
        return loaded if self.argument is None else functools.partial(loaded, self.argument)


def plugins(kind: Kind | None = None) -> list[Plugin]:
    """The plugins of a kind, or of all kinds of a matrix; a clashing name occurs more than once."""
    wanted = KINDS if kind is None else (kind,)
    return [plugin for plugin in _installed(tuple(sys.path))[0] if plugin.kind in wanted]


def misplaced() -> list[str]:
    """What is wrong with entry points of a group ``mlbench.*`` that holds no kind of plugin."""
    return _installed(tuple(sys.path))[1]


@functools.cache
def _installed(path: tuple[str, ...]) -> tuple[list[Plugin], list[str]]:
    """The plugins of the distributions in these folders, and ``misplaced``: some 20 ms."""
    found: dict[Plugin, None] = {}
    lost: dict[str, None] = {}
    groups = {f"mlbench.{PLURALS[kind]}": kind for kind in EVERY_KIND}
    for distribution in distributions(path=list(path)):
        entries = [e for e in distribution.entry_points if e.group.startswith("mlbench.")]
        if not entries:
            continue
        metadata = distribution.metadata  # is parsed at each access
        for entry in entries:
            name, version = metadata["Name"], metadata["Version"]
            if entry.group in groups:
                found[Plugin(groups[entry.group], entry.name, entry.value, name, version)] = None
            else:
                what = f"group {entry.group!r} of the entry point {entry.name} of {name} {version}"
                lost[unknown(what, entry.group, groups)] = None
    ordered = sorted(found, key=lambda p: (EVERY_KIND.index(p.kind), p.name, p.distribution))
    return ordered, list(lost)


def find(kind: Kind, text: str) -> Plugin:
    """Find the plugin of this kind named ``text`` (``name`` or ``name:argument``).

    Raises:
        PluginError: no such name (the nearest are suggested), or two distributions claim it.
    """
    name, colon, argument = text.partition(":")
    candidates = plugins(kind)
    if colon and any(p.name == text for p in candidates):
        what = f"{kind} {text!r} has a colon in its name, where an argument would begin"
        raise PluginError(f"{what}; rename the entry point")
    hits = [p for p in candidates if p.name == name]
    if not hits:
        tried = candidates if Path(text).exists() else []
        readers = [p.name for p in tried if not problems([p]) and needs_argument(p)]
        if readers:
            write = " or ".join(f"{reader}:{text}" for reader in readers)
            raise PluginError(f"{text} is a file or folder, not a {kind}; write {write}")
        raise unknown_plugin(text, kind)
    if len(hits) > 1:
        claims = " and ".join(f"{p.package} ({p.value})" for p in hits)
        other = next(p.distribution for p in hits if p.distribution != DISTRIBUTION)
        raise PluginError(
            f"{kind} {name!r} is claimed by {claims}; rename the entry point in {other}'s "
            f"pyproject.toml and reinstall it, or uninstall {other}"
        )
    if colon and not argument:
        raise PluginError(f"{kind} {text!r} ends in a colon; write {name} or {name}:SOMETHING")
    return replace(hits[0], argument=argument if colon else None)


def dataset_card(plugin: Plugin) -> DatasetCard | None:
    """The card of a data set, read from its factory; None if it has none."""
    from mlbench.types import DatasetCard  # not at the top, as `mlbench --help` needs no pydantic

    card = getattr(replace(plugin, argument=None).load(), "card", None)
    return card if isinstance(card, DatasetCard) else None


def recorded_as(name: str, chosen: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and all options under which a data set is recorded.

    An alias becomes the name that it stands for, ``Dataset.recorded_as`` maps names and options
    that stand for the same data to one, and the other options get their defaults.

    Raises:
        PluginError: as ``with_defaults``, or the mapping fails.
    """
    name = canonical("dataset", name)
    plugin = replace(find("dataset", name), argument=None)
    if rule := getattr(plugin.load(), "recorded_as", None):
        with typed_errors([plugin], f"recorded_as of dataset {name} failed"):
            name, chosen = rule(name, chosen)
    return name, with_defaults("dataset", name, chosen)


def kinds_of(text: str, among: Iterable[Kind] = KINDS) -> list[Kind]:
    """Return the kinds under which a name is registered."""
    name = text.partition(":")[0]
    return [kind for kind in among if any(p.name == name for p in plugins(kind))]


def find_all(text: str, kinds: Collection[str] = KINDS) -> list[Plugin]:
    """Return the plugins of these kinds that a name stands for.

    Raises:
        PluginError: there is none, or two distributions claim the name.
    """
    if not (found := kinds_of(text, EVERY_KIND)):
        raise unknown_plugin(text)
    if not (wanted := [kind for kind in found if kind in kinds]):
        raise PluginError(f"{text}: plugins of kind {found[0]} have neither card nor checks")
    return [find(kind, text) for kind in wanted]


def canonical(kind: Kind, text: str) -> str:
    """Return the name that runs record: the alphabetically first of all aliases.

    Entry points of one distribution that point to the same object are aliases.

    Raises:
        PluginError: as ``find``.
    """
    found = find(kind, text)
    aliases = (p for p in plugins(kind) if p.distribution == found.distribution)
    first = next((p for p in aliases if p.value == found.value), found)
    return replace(first, argument=found.argument).label


def problems(found: Iterable[Plugin]) -> dict[Plugin, str]:
    """The plugins that two distributions claim or that cannot be imported, with the reason.

    The plugins of mlbench itself are not imported, which would take seconds; its tests do so.
    """
    errors = {}
    for plugin in found:
        try:
            find(plugin.kind, plugin.name)
            if plugin.distribution != DISTRIBUTION:
                plugin.load()
        except PluginError as error:
            errors[plugin] = str(error)
    return errors


def unknown_plugin(text: str, kind: Kind | None = None) -> PluginError:
    """Make the error for a name that is not registered; ``kind`` None means any of ``KINDS``."""
    known = {plugin.name for plugin in plugins(kind)}
    hint = unknown(f"{kind or 'plugin'} {text!r}", text.partition(":")[0], known)
    return PluginError("; ".join((f"{hint} (`mlbench list` shows everything)", *misplaced())))


def make(kind: Kind, name: str, given: Iterable[Any], chosen: Mapping[str, Any]) -> Any:
    """Call the factory of a plugin with the core's arguments, in order, and the chosen options.

    Raises:
        PluginError: the plugin is unknown or broken, lacks an option, or fails in an untyped error.
        OSError: the plugin could not read a file.
    """
    assert_known_options(kind, name, chosen)
    plugin = find(kind, name)
    factory = plugin.load()
    chosen_here = f" with {dict(chosen)}" if chosen else ""
    with typed_errors([plugin], f"{kind} {name} cannot be made{chosen_here}"):
        return factory(*given, **copy.deepcopy(dict(chosen)))  # a plugin may change its lists


@contextmanager
def typed_errors(found: Iterable[Plugin], what: str) -> Iterator[None]:
    """Turn an untyped error in these plugins' code into a ``PluginError`` that begins with what."""
    try:
        yield
    except (MlbenchError, OSError):
        raise
    except Exception as error:
        raise PluginError(
            f"{what}: {type(error).__name__}: {error}{line_in(found, error)}; correct the options "
            "or the code"
        ) from error


def line_in(found: Iterable[Plugin], error: BaseException) -> str:
    """`` (FILE:LINE)`` of the last line of these plugins' packages that an error passed, or ""."""
    own = {plugin.value.partition(":")[0].partition(".")[0] for plugin in found}
    lines = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] in own
    ]
    return f" ({lines[-1]})" if lines else ""


def with_defaults(kind: Kind, name: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a plugin as a record holds them: the chosen ones, else the defaults.

    A whole number becomes a float if the default is a float, so that ``1`` and ``1.0`` are one run.

    Raises:
        PluginError: the plugin is unknown or broken, or an option is not plain data or differs in
            type from its default.
    """
    used = options(find(kind, name).load(), kind)
    for option, value in chosen.items():
        default = used.get(option)
        other = any(type(default) in types and type(value) not in types for types in ALIKE)
        if other and value is not None:
            what = f"{kind}_options.{option}"
            raise PluginError(
                f"{what} of {name} is {value!r}; give a value like its default, {default!r}"
                f"{'' if kind == 'dataset' else one_of(what, value)}"
            )
        used[option] = float(value) if type(default) is float and type(value) is int else value
    return as_recorded(used, f"{kind} {name}")


def as_recorded(used: Mapping[str, Any], of: str) -> dict[str, Any]:
    """Return the options of a plugin as plain data; raise ``PluginError`` if one is not plain."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(used))
    except TypeError as error:
        raise PluginError(
            f"an option of {of} cannot be written to a record ({error}): {used}; let its "
            "options be numbers, texts, lists of them or None"
        ) from error
    return plain


def assert_known_options(kind: Kind, name: str, chosen: Iterable[str]) -> None:
    """Raise ``PluginError`` if a plugin lacks an option."""
    known = options(find(kind, name).load(), kind)
    for option in chosen:
        if option not in known:
            raise PluginError(unknown(f"option {option!r} of {kind} {name}", option, known))


def needs_argument(plugin: Plugin) -> bool:
    """True if a factory has a positional parameter without default that the core does not pass."""
    return any(
        one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        for one in _own_parameters(plugin.load(), plugin.kind)
    )


def options(factory: Any, kind: Kind = "head") -> dict[str, Any]:
    """Options of a factory -> defaults: the parameters that the core does not pass."""
    own = _own_parameters(factory, kind)
    return {one.name: one.default for one in own if one.default is not one.empty}


def _own_parameters(factory: Any, kind: Kind) -> list[inspect.Parameter]:
    found = inspect.signature(factory).parameters.values()
    return [one for one in found if one.name not in CORE_PARAMETERS.get(kind, ())]
