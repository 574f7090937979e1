"""Words of messages (counts, short lists, near names, validation errors), commands, and YAML."""

from __future__ import annotations

import ast
import difflib
import functools
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from mlbench.types import SuiteError

if TYPE_CHECKING:
    import yaml
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


def count(number: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``; the noun's plural must end in s."""
    return f"{number:,} {plural(number, noun)}"


def plural(number: int, noun: str) -> str:
    """``row`` for 1, ``rows`` for any other number."""
    return noun if number == 1 else f"{noun}s"


def shorten(items: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """``a, b, c, d, e and 3 more``: at most ``limit`` items, then the number of the rest."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(map(str, items[:limit])) + more


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A message for an unknown name, with the nearest known names, or all of them if none is near.

    ``what`` is the name and what it should have been: ``"option 'yaer' of coco"``.
    """
    names = sorted(known)
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=3, cutoff=0.6)
    near = [folded[each] for each in close]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return f"unknown {what}; {hint}"


def one_of(setting: str, given: Any) -> str:
    """Advice to run each value of a list that was given for one value; else empty."""
    several = ",".join(map(str, given)) if isinstance(given, list | tuple) else ""
    return several and f"; for a run with each: --set grid.{setting}={several}"


def flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested fields to dotted names: ``settings.optimizer.lr``, ``augmentation.0.name``."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = {str(i): one for i, one in enumerate(value)}
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def first_error(error: ValidationError) -> str:
    """The first validation error of a file in one line: ``field = value: what is wrong``."""
    return _describe(error.errors()[0], "the file")


def describe_errors(error: ValidationError, model: type[BaseModel], of: str = "") -> str:
    """Describe every validation error of a model; suggest the nearest names of an unknown field."""
    return "; ".join(_describe(item, of, model) for item in error.errors())


def _describe(item: ErrorDetails, of: str, model: type[BaseModel] | None = None) -> str:
    where = ".".join(map(str, item["loc"])) or of
    if model is not None and item["type"] == "extra_forbidden":
        *path, name = item["loc"]
        return unknown(f"option {where!r}", str(name), _model_at(model, path).model_fields)
    kind, given, message = item["type"], item["input"], item["msg"].removeprefix("Value error, ")
    if kind == "tuple_type":
        message += "; give a list" + ("" if given is None else f", such as [{given}]")
    elif kind == "model_type" and model is not None:
        message = f"give a mapping of {', '.join(_model_at(model, item['loc']).model_fields)}"
    elif kind == "greater_than_equal" and isinstance(given, str):  # pydantic takes 0-2 for -2
        message = "give whole numbers, such as 0,1,2"
    elif kind.endswith("_type") and model is not None and model.__name__ == "Settings":
        message += one_of(where, given)
    shown = "" if isinstance(given, dict) else f" = {given!r:.80}"
    return f"{where}{shown}: {message}".lstrip(" =:")


def _model_at(model: Any, path: Iterable[int | str]) -> Any:
    """The nested model at this path of fields."""
    for part in path:
        if isinstance(part, str):  # not a place in a tuple
            found = model.model_fields[part].annotation
            model = next(one for one in (found, *get_args(found)) if hasattr(one, "model_fields"))
    return model


def command_line() -> str:
    """The command of this process as it was typed, for records."""
    return in_utf8(shlex.join(["mlbench", *sys.argv[1:]]))


def in_utf8(text: str) -> str:
    """Escape what UTF-8 cannot encode: bytes of files' names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


EXAMPLES = {
    "--option": "lam=0.5",
    "--set": "optimizer.lr=3e-4",
    "--grid": "optimizer.weight_decay=1e-4,1e-2",
}
"""Flag -> an example of its ``NAME=VALUE``."""


def named_values(texts: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Parse ``NAME=VALUE`` texts of a flag; the last one of a name counts.

    A value is read as YAML or Python, otherwise it is a text.

    Raises:
        SuiteError: a text has no equals sign, or no name.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SuiteError(f"{flag} {text!r} is not NAME=VALUE, as in {flag} {EXAMPLES[flag]}")
        found[name.strip()] = _value(value.strip() or value)
    return found


_TEXTS = re.compile(r"[-+]?0[\d_]+$|\d+-|.*:|[-+]?[\d_]{640}")
"""Begins 010, 2024-01-02, 1:30 (to YAML 1.1: 8, a date, 90) and more digits than Python takes."""


@functools.cache
def plain_yaml() -> type[yaml.SafeLoader]:
    """A loader of YAML that people write, which reads as texts what ``_TEXTS`` begins.

    It raises ``YAMLError``, also for a value that holds itself, and ``RecursionError``.
    """
    import yaml  # not at the top, as `mlbench --help` needs none

    class PlainLoader(yaml.SafeLoader):
        def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
            if kind is yaml.ScalarNode and _TEXTS.match(value):
                return self.DEFAULT_SCALAR_TAG
            return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            return super().construct_object(node, deep=True)  # as a whole, to find itself in it

    return PlainLoader


def _value(text: str) -> Any:
    import yaml

    if text and (text.isspace() or (len(text) == 1 and not text.isalnum())):
        return text  # a separator; most mean something to YAML
    try:
        value = yaml.load(text, plain_yaml()) if text else ""
    except (yaml.YAMLError, RecursionError):
        value = text
    if isinstance(value, str) and value == text:
        try:
            return ast.literal_eval(text)  # 1e-3 and None, which are texts to YAML
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text
    return value
