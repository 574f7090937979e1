"""What a plugin of each kind must do, a module a kind: plugins of the group `mlbench.checks`."""

from __future__ import annotations

import functools
from typing import Any

import torch


def kept(make: Any) -> Any:
    """Keep what a function made last, unless the lines that make it are traced for a fault."""
    cached = functools.lru_cache(maxsize=2)(make)
    return lambda *given: (make if torch.is_anomaly_enabled() else cached)(*given)
