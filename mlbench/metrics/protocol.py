"""The canonical protocol: the numbers that every record carries (see benchmarks/README.md)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix, average_precision
from mlbench.metrics.bootstrap import bootstrap_map
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.types import Scores, Targets

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that bound the 95 % interval."""


def score(
    logits: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> tuple[Scores, tuple[float | None, ...]]:
    """Every number of the protocol, in percent.

    mAP is the mean of the non-interpolated AP over the classes that have a positive, with its 95 %
    bootstrap interval over images, centred; P, R and F1 are taken at probability 0.5 (logit 0)
    and, with the same threshold, for the three highest labels of an image. Unknown entries count
    nowhere.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: draws of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The scores, and the AP of each of the C classes: None where a class has no positive.

    Raises:
        MeasureError: the arrays do not fit, a logit is not finite, or no class has a positive.
    """
    values, by_class = point_scores(logits, targets)
    overall = by_class[~np.isnan(by_class)].mean()
    draws = bootstrap_map(logits, targets, resamples, seed)
    # A draw repeats images, and a repeated positive lifts the AP of a rare label: the draws lie
    # above the score by several points where labels are rare. Their spread is what is wanted.
    low, high = np.percentile(draws - draws.mean() + overall, INTERVAL)
    scores = Scores.model_validate(
        values | {"mAP_low": 100 * float(low), "mAP_high": 100 * float(high)}
    )
    return scores, tuple(None if np.isnan(ap) else 100 * float(ap) for ap in by_class)


def point_scores(
    logits: ScoreMatrix, targets: Targets
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Every number of the protocol but the interval, in percent, and the AP of each class.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        The numbers by their names in ``Scores``, and AP [C] in [0, 1], NaN where a class has no
        positive.

    Raises:
        MeasureError: the arrays do not fit, a logit is not finite, or no class has a positive.
    """
    by_class = average_precision(logits, targets)
    absent = np.isnan(by_class)
    at_half = precision_recall_f1(logits, targets)
    top3 = precision_recall_f1(logits, targets, top_k=3)
    values = {
        "mAP": 100 * float(by_class[~absent].mean()),
        **{name: 100 * value for name, value in at_half.items()},
        **{f"top3_{name}": 100 * value for name, value in top3.items()},
        "classes_scored": int(np.count_nonzero(~absent)),
        "classes_left_out": int(np.count_nonzero(absent)),
    }
    return values, by_class
