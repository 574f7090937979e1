"""Find the file and line of a plugin's own source that a fault comes from."""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mlbench.contracts import outcome
from mlbench.contracts.outcome import ContractError, NotFinite
from mlbench.registry import CORE_PARAMETERS, Plugin
from mlbench.types import MlbenchError, PluginError

OVERWRITTEN = re.compile(r"(?:an inplace operation: \[\S+|in place to the features) \[([\d, ]+)\]")
"""Finds the tensor's shape in torch's message on values that a backward pass needs, and in ours."""
FIXED = re.compile(r"specialized it to be a constant \((\d+)\)")
"""Finds the batch size in torch's message of an export that took it for a constant."""


class PluginSource:
    """The source of a plugin: its package, or its module if that is in no package.

    Lines are written ``file:line``, relative to the working directory if they are below it.
    """

    def __init__(self, plugin: Plugin) -> None:
        self._plugin, self.kind = plugin, plugin.kind
        self._module, _, self._attribute = plugin.value.partition(":")
        top = find_spec(self._module.partition(".")[0])
        self._roots = list(top.submodule_search_locations or ()) if top else []
        self._roots += [top.origin] if top and top.origin else []

    def innermost(self, lines: Iterable[tuple[str, int]]) -> str:
        """Return the last of these lines that is the plugin's own; empty if none is."""
        own = [line for line in lines if self._holds(line[0])]
        return _shown(*own[-1]) if own else ""

    def line_of_error(self, error: BaseException) -> str:
        """Return the plugin's innermost line in the traceback; empty if it has none."""
        if error.__cause__ is not None and (line := self.line_of_error(error.__cause__)):
            return line
        if isinstance(error, SyntaxError) and self._holds(error.filename or ""):
            return _shown(error.filename or "", error.lineno or 1)
        frames = traceback.walk_tb(error.__traceback__)
        return self.innermost((frame.f_code.co_filename, line) for frame, line in frames)

    def current_line(self) -> str:
        """Return the plugin's innermost line that is running; empty if none is."""
        frames = reversed(list(traceback.walk_stack(sys._getframe())))
        return self.innermost((frame.f_code.co_filename, line) for frame, line in frames)

    def line_of_definition(self, attribute: str = "") -> str:
        """Return where an attribute is set, or else where the code that is checked begins."""
        try:
            found = self._plugin.load()
        except PluginError:
            return ""
        found = found.func if isinstance(found, partial) else found
        if attribute or not callable(found):
            setting = re.compile(rf"\s*(self\.|def )?{attribute or self._attribute}\s*[:=(]")
            for place in getattr(found, "__mro__", [sys.modules.get(self._module)]):
                if line := self._first_line(place, setting):
                    return line
        methods = (getattr(found, name, None) for name in ("forward", "index", "__call__"))
        lines = (self._first_line(place) for place in (*methods, found))
        return next(filter(None, lines), "")

    def _holds(self, file: str) -> bool:
        return any(file == root or file.startswith(f"{root}{os.sep}") for root in self._roots)

    def _first_line(self, place: Any, pattern: re.Pattern[str] = re.compile("")) -> str:
        """The first line of a module, class or function that a pattern matches."""
        with suppress(OSError, TypeError):
            lines, start = inspect.getsourcelines(place)
            file = inspect.getfile(place)
            at = next((i for i, text in enumerate(lines) if pattern.match(text)), None)
            if at is not None and self._holds(file):
                return _shown(file, max(start, 1) + at)
        return ""


def _shown(file: str, line: int) -> str:
    path = Path(file)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


class _Tracer(TorchDispatchMode):
    """Remember the plugin's lines that overwrite tensors or first make one that is not finite."""

    def __init__(self, source: PluginSource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source
        self.not_finite = ""
        self.overwrites: dict[tuple[int, ...], str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable and (line := self._source.current_line()):
            self.overwrites[tuple(args[0].shape)] = line
        made_up = "empty" in func.name()  # whatever the memory held
        if not made_up and not _finite(result) and _finite((args, kwargs)):
            self.not_finite = self._source.current_line() or self.not_finite
        return result


def _finite(values: Any) -> bool:
    """True if every floating-point tensor among these is finite, or on ``meta``."""
    tensors = [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point()]
    return all(x.is_meta or bool(x.isfinite().all()) for x in tensors)


class _Lengths(TorchFunctionMode):
    """Remember the plugin's last line that takes the length of a tensor."""

    def __init__(self, source: PluginSource) -> None:
        super().__init__()
        self._source, self.line = source, ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__len__:
            self.line = self._source.current_line() or self.line
        return func(*args, **(kwargs or {}))


def explain(
    error: BaseException, source: PluginSource, run: Callable[[], None]
) -> tuple[str, str, str]:
    """Find the line of an error that a check raised, and say what is wrong.

    ``run`` carries out the check once more, to trace it.

    Returns:
        ``file:line``, empty if there is none; one line that says what is wrong; a key, which is the
        same for everything that one fault breaks.
    """
    reason = " ".join(str(error).split())
    if not isinstance(error, MlbenchError):
        reason = f"{type(error).__name__}: {reason}"
    if "meta tensor" in reason:
        reason += " (runs are planned on the meta device, where tensors have no values)"
    attribute = error.attribute if isinstance(error, ContractError) else ""
    if isinstance(error, TypeError) and "__init__()" in reason:
        passed = ", ".join(CORE_PARAMETERS[source.kind])
        attribute, reason = "__init__", f"{reason}; mlbench passes {passed}"
    line = source.line_of_error(error)
    if isinstance(error, NotFinite):
        watch, backward = _watched(source, run)
        line = backward or watch.not_finite
    elif found := OVERWRITTEN.search(reason):
        watch, backward = _watched(source, run)
        shape, lines = tuple(map(int, found[1].split(","))), watch.overwrites
        line = lines.get(shape) or next(reversed(lines.values()), "")  # or to a view of it
        if backward:
            reason = f"writes in place to [{found[1]}] values that the backward pass of {backward}"
            reason += " needs; make a new tensor instead"
    elif fixed := FIXED.search(reason):
        with _Lengths(source) as lengths, suppress(Exception, SystemExit):
            run()
        line = lengths.line
        reason = f"an exported model would serve batches of {fixed[1]} only; take their size from"
        reason += " x.shape[0], not from len(x) or a number"
    if line:
        return line, reason, line
    frames = traceback.extract_tb(error.__traceback__)
    raised = [f"{f.filename}:{f.lineno}" for f in frames if f.filename != outcome.__file__]
    key = raised[-1] if isinstance(error, ContractError) else reason
    return source.line_of_definition(attribute), reason, key


def _watched(source: PluginSource, run: Callable[[], None]) -> tuple[_Tracer, str]:
    """Trace a check; return the tracer and the line whose backward pass fails, empty if none."""
    watch = _Tracer(source)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with suppress(Exception, SystemExit), torch.autograd.detect_anomaly(), watch:
            run()
    text = "".join(str(w.message) for w in warned if "Traceback of forward" in str(w.message))
    frames = re.findall(r'File "(.+)", line (\d+)', text)
    return watch, source.innermost((file, int(line)) for file, line in frames)
