"""Whether a probability of 0.7 means 7 of 10: the expected calibration error (ECE)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.types import Targets

BINS = 15
"""Bins of equal width over [0, 1], as in Guo et al., ICML 2017."""


class Reliability(NamedTuple):
    """Known entries by predicted probability; a bin holds its lower edge, the last one also 1.

    Attributes:
        entries: how many per bin [..., BINS].
        confidence: their mean probability; 0 in an empty bin.
        frequency: what fraction of them is positive; 0 in an empty bin.
    """

    entries: NDArray[np.intp]
    confidence: NDArray[np.float64]
    frequency: NDArray[np.float64]

    def error(self) -> NDArray[np.float64]:
        """The ECE over the last axis: the mean of |frequency - confidence| over entries.

        In [0, 1]; NaN where there is no entry. NaN stays in this package.
        """
        gaps = self.entries * np.abs(self.frequency - self.confidence)
        total = self.entries.sum(axis=-1)
        mean = gaps.sum(axis=-1) / np.maximum(total, 1)
        return np.asarray(np.where(total > 0, mean, np.nan))


def reliability(logits: ScoreMatrix, targets: Targets, *, pooled: bool = False) -> Reliability:
    """Sort entries by the probability of their label being present.

    Args:
        logits: [N, C].
        targets: int8 [N, C] in {1, 0, -1}; an unknown entry counts nowhere.
        pooled: all classes together.

    Returns:
        Bins of each class [C, BINS], or of all together [BINS].
    """
    classes = logits.shape[1]
    known = targets >= 0
    chances = probabilities(logits)[known]
    row = np.zeros(1, dtype=np.intp) if pooled else np.arange(classes)
    place = np.minimum((chances * BINS).astype(np.intp), BINS - 1)
    place += BINS * np.broadcast_to(row, targets.shape)[known]
    size = BINS if pooled else BINS * classes
    count = np.bincount(place, minlength=size)
    mean = np.bincount(place, chances, size) / np.maximum(count, 1)
    share = np.bincount(place, targets[known], size) / np.maximum(count, 1)
    shape = (BINS,) if pooled else (classes, BINS)
    return Reliability(count.reshape(shape), mean.reshape(shape), share.reshape(shape))


def probabilities(logits: ScoreMatrix) -> NDArray[np.float64]:
    """The sigmoid of logits, float64, without overflow."""
    half: NDArray[np.float64] = 0.5 * np.tanh(0.5 * logits.astype(np.float64)) + 0.5
    return half
