"""How much of a large intermediate is computed at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

CPU_ELEMENTS = 1 << 20
"""4 MB in float32: stays in a core's share of the cache."""
ACCELERATOR_ELEMENTS = 1 << 25
"""128 MB in float32: large enough that starting kernels costs little."""


def blocks(images: int, labels: int, elements: int, like: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows of images and of labels that cover all pairs, images in the outer loop.

    Several labels to a block come before several images: a matrix product over one label is an
    outer product, which is bound by memory.

    Args:
        images: how many there are.
        labels: how many there are.
        elements: numbers that one image and label add to the intermediate.
        like: a tensor on the device that computes it.
    """
    pairs = chunk_size(elements, like)
    columns = min(labels, max(pairs, 1))
    rows = max(1, min(images, pairs // columns))
    for top in range(0, images, rows):
        for left in range(0, labels, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def chunk_size(elements: int, like: Tensor) -> int:
    """How many labels to take at a time, at least one.

    Args:
        elements: numbers that one label adds to the intermediate.
        like: a tensor on the device that computes it.
    """
    budget = CPU_ELEMENTS if like.device.type == "cpu" else ACCELERATOR_ELEMENTS
    return max(1, budget // max(1, elements))
