"""Labels by how often they occur: head, middle and tail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEAD, TAIL = 100, 20
"""More than 100 training positives make a label head, fewer than 20 tail: the convention of VOC-LT
and COCO-LT (Wu et al., ECCV 2020)."""

GROUPS = ("head", "middle", "tail")


def by_training_positives(positives_C: NDArray[np.integer]) -> NDArray[np.intp]:
    """The group of each label, an index into ``GROUPS`` [C].

    Args:
        positives_C: training images with the label.
    """
    return np.where(positives_C > HEAD, 0, np.where(positives_C < TAIL, 2, 1))


def by_thirds(positives_C: NDArray[np.integer]) -> NDArray[np.intp]:
    """Thirds of the labels, the most frequent first, as an index into ``GROUPS`` [C].

    With K labels that have a positive, a label is head if fewer than K/3 of them have more
    positives than it, else middle if fewer than 2K/3 have; labels with as many positives share a
    group. A label without a positive is not counted and falls in tail.

    Args:
        positives_C: images with the label.
    """
    ascending = np.sort(positives_C)
    above = len(ascending) - np.searchsorted(ascending, positives_C, side="right")
    scored = np.count_nonzero(positives_C > 0)
    return np.where(3 * above < scored, 0, np.where(3 * above < 2 * scored, 1, 2))
