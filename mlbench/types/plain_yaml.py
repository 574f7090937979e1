"""YAML that people write, in which a number is the one that is written, or none."""

from __future__ import annotations

import re
from typing import Any

import yaml

_TEXTS = re.compile(r"[-+]?0[\d_]+$|\d+-|.*:|[-+]?[\d_]{640}")
"""Begins 010, 2024-01-02 and 1:30, which YAML 1.1 takes for 8, a date and 90, and numbers of more
digits than Python takes."""


class PlainLoader(yaml.SafeLoader):
    """Reads as texts what people would not read as YAML 1.1 does.

    Raises:
        YAMLError: the text is not YAML, or a value holds itself.
        RecursionError: values are nested too deep.
    """

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """The kind of a value that has no tag."""
        if kind is yaml.ScalarNode and _TEXTS.match(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value with all that it holds, so that one which holds itself is an error."""
        return super().construct_object(node, deep=True)
