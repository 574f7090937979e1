"""How much of a large intermediate is computed at a time."""

from __future__ import annotations

from torch import Tensor

CPU_ELEMENTS = 1 << 20
"""4 MB in float32: stays in a core's share of the cache."""
ACCELERATOR_ELEMENTS = 1 << 25
"""128 MB in float32: large enough that starting kernels costs little."""


def chunk_size(elements: int, like: Tensor) -> int:
    """How many labels to take at a time, at least one.

    Args:
        elements: numbers that one label adds to the intermediate.
        like: a tensor on the device that computes it.
    """
    budget = CPU_ELEMENTS if like.device.type == "cpu" else ACCELERATOR_ELEMENTS
    return max(1, budget // max(1, elements))
