"""``mlbench settings``: all fields of a suite and all settings of a run, as their classes say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlbench.cli.console import console, plain_table

if TYPE_CHECKING:
    from mlbench.types import Value


def settings() -> None:
    """Print all fields of a suite and settings (`--set NAME=VALUE`), then steps and mixing."""
    from mlbench.data.mixing import MIXINGS
    from mlbench.data.transforms import STEPS
    from mlbench.suite import Suite
    from mlbench.types import Settings

    parts = {"field of a suite": [*fields_of(Suite)], "setting": [*fields_of(Settings)]}
    steps = parts["step"] = []
    for kind, known in (("augmentation", STEPS), ("mixing", MIXINGS)):
        for name, step in known.items():
            steps.append((f"{kind}: {name}", "", _first_sentence(step.__doc__)))
            steps += fields_of(step, "  ")
    for heading, rows in parts.items():
        table = plain_table((heading, "default", ""))
        for row in rows:
            table.add_row(*row)
        console.print(table, highlight=False)


def fields_of(model: type[Value], before: str = "") -> Iterator[tuple[str, str, str]]:
    """The fields of a model and of those in it: dotted name, default, sentence of the docstring."""
    docs = "\n".join(inspect.cleandoc(one.__doc__ or "") for one in model.__mro__)
    entries = re.findall(r"^ {4}(\w[^:]*): (.*(?:\n {8}.*)*)", docs, re.MULTILINE)
    said = {name: text for names, text in entries for name in names.split(", ")}
    for name, field in model.model_fields.items():
        if hasattr(field.default, "model_dump"):
            yield from fields_of(type(field.default), f"{before}{name}.")
        else:
            default = "" if field.is_required() else str(field.default)
            yield before + name, default, _first_sentence(said.get(name))


def _first_sentence(text: str | None) -> str:
    first = re.split(r"\.\s*$|\.\s+(?=[A-Z`])", text or "")[0]
    return " ".join(first.replace("``", "").split())
