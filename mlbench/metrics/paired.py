"""Whether two models differ on other images of the same kind: the paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix, average_precision
from mlbench.metrics.bootstrap import bootstrap_average_precision, mean_over_classes
from mlbench.metrics.significance import two_sided
from mlbench.types import MeasureError, Targets

INTERVAL = (2.5, 97.5)
"""Percentiles of the draws that bound the 95 % interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Paired:
    """How much better the first is than the second; fractions, not percent.

    Attributes:
        difference: of the mAPs.
        low, high: 95 % bootstrap interval of the difference.
        p: two-sided p value of no difference, never below 2 / (resamples + 1).
        classes: [C] differences of AP, NaN for a class without a positive.
        classes_low, classes_high: [C] their intervals, each of its own.
        classes_p: [C] p values, not adjusted for their number; see ``paired_bootstrap``.
    """

    difference: float
    low: float
    high: float
    p: float
    classes: Floats
    classes_low: Floats
    classes_high: Floats
    classes_p: Floats


def paired_bootstrap(
    first: Sequence[ScoreMatrix],
    second: Sequence[ScoreMatrix],
    targets: Targets,
    resamples: int = 1000,
    seed: int = 0,
) -> Paired:
    """Draw images with replacement, the same for both, and look at the difference of the means.

    Either side may be several seeds of one configuration: in each draw of images its score is the
    mean over its seeds. So the answer is about images, with the trained models as they are. Seeds
    are not drawn: of three of them a bootstrap knows two thirds of their variance, in ten values.
    ``mlbench.boards.ranks`` adds the variance of training instead, pooled over a board.

    Draws are shifted so that their mean is the difference that was measured, as in
    ``mlbench.metrics.protocol``: a draw repeats images, which lifts the AP of rare labels, and not
    by the same amount for both. The interval is percentiles of the draws, and p is twice the
    fraction of draws on the far side of 0, counting one draw more than there were (Davison and
    Hinkley, 1997, section 4.2), so that it is never 0: below 0.05 exactly when the interval leaves
    0 out, but for that one draw.

    A class's p value is that of a normal deviate with the standard deviation of the draws: counted
    ones end at 2 / (resamples + 1), which no correction for 80 labels would ever let pass.

    Args:
        first: score matrices [N, C] of one or more seeds, images in the order of ``targets``.
        second: the same of the other side.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        MeasureError: a side is empty, the arrays do not fit, a score is not finite, or no class has
            a positive.
    """
    if not first or not second:
        raise MeasureError("a comparison needs the scores of at least one run on either side")
    measured = _mean(first, lambda scores: average_precision(scores, targets))
    measured -= _mean(second, lambda scores: average_precision(scores, targets))
    found_RC = _mean(first, lambda s: bootstrap_average_precision(s, targets, resamples, seed))
    found_RC -= _mean(second, lambda s: bootstrap_average_precision(s, targets, resamples, seed))
    difference = float(np.nanmean(measured))
    draws_R = _centred(mean_over_classes(found_RC), difference)
    low, high = np.percentile(draws_R, INTERVAL)
    present = ~np.isnan(measured)
    bounds = np.full((2, len(measured)), np.nan)
    p = np.full(len(measured), np.nan)
    for c in np.flatnonzero(present):
        column = found_RC[:, c]
        column = _centred(column[~np.isnan(column)], measured[c])
        if len(column) > 1:
            bounds[:, c] = np.percentile(column, INTERVAL)
            p[c] = two_sided(measured[c], column.var(ddof=1))
    return Paired(
        difference, float(low), float(high), _counted(draws_R), measured, bounds[0], bounds[1], p
    )


def _mean(sides: Sequence[ScoreMatrix], of: Callable[[ScoreMatrix], Floats]) -> Floats:
    total = of(sides[0])
    for scores in sides[1:]:
        total = total + of(scores)
    return total / len(sides)


def _centred(draws: Floats, mean: float) -> Floats:
    moved: Floats = draws - draws.mean() + mean
    return moved


def _counted(draws: Floats) -> float:
    beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return float(min(1.0, 2 * (beyond + 1) / (len(draws) + 1)))
