"""What the plugins of a board say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlbench.types import DatasetCard, Recipe


@dataclass(frozen=True)
class Catalogue:
    """Cards by name, collected by whoever may load plugins; a board loads none.

    Attributes:
        recipes: method -> its recipe.
        options: method -> options of its head with their defaults.
        cards: data set -> its card.
        problems: name -> why nothing is known of it.
    """

    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cards: Mapping[str, DatasetCard] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
