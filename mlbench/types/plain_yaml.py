"""YAML that people write, in which a number is the one that is written, or none."""

from __future__ import annotations

import re
from typing import Any

import yaml

_TEXTS = re.compile(r"[-+]?0[\d_]+$|\d+-|.*:")
"""Begins 010, 2024-01-02 and 1:30, which are 8, a date and 90 to YAML 1.1."""


class PlainLoader(yaml.SafeLoader):
    """Reads as texts what people would not read as YAML 1.1 does.

    Raises:
        YAMLError: the text is not YAML, or a value is not of its kind or holds itself.
        RecursionError: values are nested too deep.
    """

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> Any:
        """The kind of a value that has no tag."""
        if kind is yaml.ScalarNode and _TEXTS.match(value):
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value with all that it holds."""
        problem = "a value holds itself"
        try:
            if node not in self.recursive_objects:
                return super().construct_object(node, deep=True)
        except (ValueError, KeyError, AttributeError):  # 5,000 digits; !!bool maybe
            problem = f"cannot read {node.value:.40} as {node.tag.rpartition(':')[2]}"
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
