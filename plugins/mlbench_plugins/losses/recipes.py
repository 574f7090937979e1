"""Recipes of papers whose subject is a loss: the entries of ``recipes.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml

from mlbench.types import Recipe

_WRITTEN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _read(name: str) -> Recipe:
    return Recipe.model_validate(_WRITTEN[name])


AN, AN_LS, WAN = _read("an"), _read("an_ls"), _read("wan")
EM, LARGE_LOSS = _read("em"), _read("large_loss")
HILL, SPLC = _read("hill"), _read("splc")
CSL, TWO_WAY, ZLPR = _read("csl"), _read("two_way"), _read("zlpr")
