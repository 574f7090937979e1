"""Backbones without weights, memory or time, for whoever plans, profiles or verifies a run."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from mlbench import registry

if TYPE_CHECKING:
    from mlbench.types import Backbone


@functools.lru_cache(maxsize=64)
def outline(name: str, image_size: int) -> Backbone:
    """A backbone on the ``meta`` device, in evaluation mode; made once, so it must not be changed.

    Args:
        name: of the plugin.
        image_size: pixels of a side.

    Raises:
        PluginError: the plugin is unknown or broken, or cannot serve the size.
    """
    factory = registry.find("backbone", name).load()
    with torch.device("meta"):
        made: Backbone = factory(weights="none", image_size=image_size).eval()
    return made
