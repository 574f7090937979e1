"""Read the fields of a suite from a file and from ``--set NAME=VALUE``, unvalidated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mlbench import registry
from mlbench.suite import LABEL_AXES, Suite, as_list
from mlbench.text import named_values, plain_yaml, unknown
from mlbench.tracks import merge, nest
from mlbench.types import Settings, SuiteError

SEEDS = (0, 1, 2)
"""Default seeds of a suite file, so that it shows their spread; a command line has seed 0."""

FILES = ("data", "results", "cache", "weights", "init")
"""Fields that are paths; in a suite file they are relative to the file."""


class _Loader(plain_yaml()):  # type: ignore[misc]
    """Reads 1e-3 as a number, which is a text in run files; refuses a name twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the names, of which the last would count; then merge what ``<<`` brings."""
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and seen.setdefault(key.value, value) is not value:
                what = f"{key.value!r} occurs twice"
                raise yaml.constructor.ConstructorError(problem=what, problem_mark=key.start_mark)
        super().flatten_mapping(node)
        if "<<" in seen:  # the mapping's own names come later, and count
            node.value = list({str(key.value): (key, value) for key, value in node.value}.values())


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_suite(file: Path) -> dict[str, Any]:
    """Read the fields of a suite file without validating them.

    Raises:
        SuiteError: the file is missing, is not UTF-8 or YAML, or has an unknown field.
    """
    try:
        fields = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        remedy = "name an existing YAML file with --suite FILE"
        raise SuiteError(f"{file} cannot be read ({error.strerror}); {remedy}") from error
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SuiteError(f"{file} is not YAML in UTF-8: {error}; correct this place") from error
    if not isinstance(fields, dict):
        raise SuiteError(f"suite {file} must be a mapping of {', '.join(Suite.model_fields)}")
    fields = place(fields, f"in {file}")
    for name in FILES:
        if name in fields:
            fields[name] = _resolve(file, fields[name], ("default", "none"))
    if "words" in fields and isinstance(words := as_list(fields["words"]), list):
        fields["words"] = [_resolve(file, word, LABEL_AXES["words"]) for word in words]
    for axis in ("plugins", "datasets"):
        if isinstance(names := as_list(fields.get(axis)), list):
            fields[axis] = [_resolve_argument(file, name) for name in names]
    if isinstance(options := fields.get("dataset_options"), dict):  # of DATASET or DATASET.NAME
        parts = [
            (k, "", "") if isinstance(options[k], dict) else k.rpartition(".") for k in options
        ]
        names = [_resolve_argument(file, name) + dot + option for name, dot, option in parts]
        fields["dataset_options"] = dict(zip(names, options.values(), strict=True))
    return fields


def _resolve(file: Path, value: Any, names: Iterable[str]) -> Any:
    """Resolve a path relative to a suite file; keep names and digests."""
    if not isinstance(value, str) or value in names or value.startswith("sha256:"):
        return value
    return str(file.parent / Path(value).expanduser())


def _resolve_argument(file: Path, name: str) -> str:
    """Resolve ``manifest:photos.csv`` relative to a suite file, if the file is there."""
    kind, _, argument = str(name).partition(":")
    found = file.parent / Path(argument).expanduser()
    known = argument and found.exists() and "dataset" in registry.kinds_of(kind)
    return f"{kind}:{found}" if known else name


def apply_overrides(fields: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """Apply ``--set NAME=VALUE`` texts to the fields of a suite.

    Raises:
        SuiteError: a text is not ``NAME=VALUE``, or the name is unknown.
    """
    return merge(fields, place(named_values(texts, "--set"), "of --set"))


def place(given: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The fields of a suite that names and values stand for: settings go into ``settings``.

    A name is a field of a suite or a setting, possibly dotted: ``holdout``, ``optimizer.lr``,
    ``head_options.time_steps``, ``dataset_options.coco.year``, or ``dataset_options.year`` for
    every data set. Where two names say the same, the last one counts.

    Raises:
        SuiteError: a name is unknown ``where``, such as "of --set".
    """
    merged: dict[str, Any] = {}
    for name, value in given.items():
        first, _, rest = str(name).partition(".")
        if first in ("grid", "vary", "dataset_options") and rest:
            over = {first: {rest: value}}  # names of settings have dots; see ``_dataset_options``
        elif first in Suite.model_fields:
            over = nest(name, value)
        elif first in Settings.model_fields:
            over = {"settings": nest(name, value)}
        else:
            known = [*Suite.model_fields, *Settings.model_fields]
            raise SuiteError(unknown(f"option {name!r} {where}", first, known))
        merged = merge(merged, over)
    return merged
