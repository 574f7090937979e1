"""Where to cut scores into predictions: thresholds that maximise F1 on some split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.metrics.precision_recall import predict, rates
from mlbench.types import Targets

HALF = 0.0
"""The logit of probability 0.5."""

MSRN_SWEEP = np.arange(-10, 10) / 10
"""The logits -1.0, -0.9, ..., 0.9 that MSRN's evaluation tries."""


def best_threshold(scores: ScoreMatrix, targets: Targets) -> float:
    """The score that, taken as a threshold, gives all entries together the highest F1.

    Every score in hand is tried, equal ones as one; of equal F1 the highest threshold is taken, so
    that no more is predicted than pays.

    Args:
        scores: of any shape.
        targets: int8 of the same shape; an unknown entry counts nowhere.

    Returns:
        A threshold that what is predicted reaches; ``HALF`` where nothing is positive.
    """
    known = targets >= 0
    found, present = scores[known], targets[known] == 1
    if not present.any():
        return HALF
    order = np.argsort(-found, kind="stable")
    descending, hits = found[order], np.cumsum(present[order])
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    return float(descending[last[f1.argmax()]])


def best_thresholds(scores: ScoreMatrix, targets: Targets) -> NDArray[np.float64]:
    """``best_threshold`` of each class.

    Args:
        scores: [N, C].
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        float64 [C]; ``HALF`` for a class without a positive.
    """
    return np.array([best_threshold(s, t) for s, t in zip(scores.T, targets.T, strict=True)])


def msrn_threshold(scores: ScoreMatrix, targets: Targets) -> float:
    """What MSRN's evaluation settles on: the logit of its sweep with the highest CF1 + OF1.

    Of equal sums the lowest is taken.

    Args:
        scores: [N, C] logits.
        targets: int8 [N, C] in {1, 0, -1}, with some positive.
    """
    sums = []
    for threshold in MSRN_SWEEP:
        found = rates(predict(scores, targets, float(threshold)), targets)
        sums.append(found["CF1"] + found["OF1"])
    # Sums that differ by rounding only are equal.
    return float(MSRN_SWEEP[np.flatnonzero(np.array(sums) >= max(sums) - 1e-12)[0]])
