"""Options that a command passes on: ``NAME=VALUE``."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlbench.text import unknown
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.suite import Suite

EXAMPLES = {
    "--option": "lam=0.5",
    "--dataset-option": "year=2014",
    "--label-noise": "keep=0.4",
}


def named_values(texts: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Names with values as YAML or Python writes them; what is neither is a text.

    Args:
        texts: ``NAME=VALUE`` each; of a name that stands twice the last counts.
        flag: which they were given with, for the message.

    Raises:
        SuiteError: a text without an equals sign, or without a name.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SuiteError(f"{flag} {text!r} is not NAME=VALUE, as in {flag} {EXAMPLES[flag]}")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """What suites read as a number, a boolean, a list or null is one here."""
    import yaml

    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = text
    if not isinstance(value, str | int | float | list | dict | None):
        return text  # YAML knows dates, which no option is
    if isinstance(value, str) and value == text:
        try:
            return ast.literal_eval(text)  # 1e-3 and None, which are texts to YAML
        except (ValueError, SyntaxError):
            return text
    return value


def with_dataset_options(suite: Suite, given: Mapping[str, Any]) -> Suite:
    """The suite with options of data sets laid on top of its own.

    Args:
        suite: the matrix.
        given: ``NAME`` -> value for each of its data sets, ``DATASET.NAME`` for one of them.

    Raises:
        SuiteError: a data set that is not among them.
    """
    datasets = suite.datasets or ("synthetic",)
    options = {name: dict(suite.dataset_options.get(name, {})) for name in datasets}
    for key, value in given.items():
        dataset, dot, name = key.rpartition(".")
        if dot and dataset not in options:
            what = f"data set {dataset!r} of --dataset-option {key}"
            raise SuiteError(unknown(what, dataset, options))
        for one in (dataset,) if dot else datasets:
            options[one][name] = value
    return suite.model_copy(update={"dataset_options": {**suite.dataset_options, **options}})
