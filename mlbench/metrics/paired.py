"""Compare runs on the same images: the influence of each image on mAP, and p values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbench.metrics.average_precision import Floats, ScoreMatrix, check, scored_classes
from mlbench.types import Predictions, Targets


# --------------------------------------------------------------------------------------- influence
def influence(scores: ScoreMatrix, targets: Targets) -> tuple[float, Floats]:
    """Compute mAP, and its derivative in the weight of every image at equal weights of 1.

    With weights w, ``mAP(w) ~ mAP + sum_i (w_i - 1) g_i``, so that the bootstrap's variance of mAP
    is about ``sum_i g_i^2``, and that of a difference of two mAPs on the same images
    ``sum_i (g_i - h_i)^2``: the infinitesimal jackknife (Jaeckel, 1972; Efron, 1982, chapter 6).
    One pass over a class gives what a thousand resamples give, for every pair of runs at once.

    For AP_c = sum_j w_j H_j / K_j / sum_j w_j over the positives j of a class, where H_j and K_j
    are the weights of positives and of all known images that score at least as high, an image i
    adds to each positive j that it does not score below ``[i positive] / K_j - H_j / K_j^2``, and,
    if it is positive, its own precision less AP_c; all of it divided by the number of positives.
    mAP does not change when all weights are multiplied, so that the values add up to 0.

    The variance of a mean over P positives is P / (P - 1) times what their spread about it shows,
    and labels of two or three positives are common: a class's part is multiplied by the root.
    In simulations of 200 to 5,000 images with 2 to 250 positives per label the standard deviation
    of a difference was 0.95 to 1.12 of the true one, and 0.80 to 0.96 without this factor
    (``tests/metrics/test_paired.py`` checks this). A single positive has no spread to estimate and
    is treated as two.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        mAP in [0, 1] over the classes that have an AP, and float64 [N].

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class can be scored.
    """
    check(scores, targets)
    total_N, scored = np.zeros(len(scores)), scored_classes(targets)
    columns = (np.ascontiguousarray(matrix.T[scored]) for matrix in (scores, targets))
    precisions = [_add_class(s, t, total_N) for s, t in zip(*columns, strict=True)]
    return float(np.mean(precisions)), total_N / len(precisions)


def _add_class(scores: ScoreMatrix, targets: Targets, total_N: Floats) -> float:
    """Add the derivative of one class's AP to the total and return the AP."""
    images = np.flatnonzero(targets == 1)
    order = np.argsort(scores[images], kind="stable")
    images = images[order]
    positives, count = scores[images], len(images)
    # For every image: how many positives it does not score below, the first of `positives`.
    reached_N = np.searchsorted(positives, scores, side="right")
    known = targets >= 0
    at = np.bincount(reached_N[known], minlength=count + 1)
    at_or_above = np.cumsum(at[::-1])[::-1]
    level = reached_N[images]
    K = at_or_above[level].astype(np.float64)
    H = count - np.searchsorted(positives, positives)
    precision = H / K
    average = float(precision.mean())
    spread = count / (count - 1) if count > 1 else 2.0
    share = spread**0.5 / count
    lost = np.concatenate([[0.0], np.cumsum(precision / K)]) * share
    gained = np.concatenate([[0.0], np.cumsum(1 / K)]) * share
    total_N -= np.where(known, lost[reached_N], 0.0)
    total_N[images] += gained[level] + (precision - average) * share
    return average


@dataclass(frozen=True)
class Influence:
    """The influence of each test image on a run's mAP; boards need no more of the predictions.

    Attributes:
        images: hash of test images, targets and label names; compare only equal ones.
        values: float32 [N] in percent, in the order of the sorted keys.
        mAP: mAP of the predictions, in percent.
    """

    images: str
    values: NDArray[np.float32]
    mAP: float  # noqa: N815 - the field's own spelling


def derive_influence(predictions: Predictions, names: tuple[str, ...]) -> Influence:
    """Compute the influence of each image; takes some tenths of a second for COCO.

    Raises:
        MeasureError: nothing in the predictions can be scored.
    """
    score, values = influence(predictions.logits, predictions.targets)
    order = np.argsort(np.array(predictions.keys), kind="stable")
    state = hashlib.sha256("\n".join((*names, *sorted(predictions.keys))).encode())
    state.update(np.ascontiguousarray(predictions.targets[order]).tobytes())
    in_percent = (100 * values[order]).astype(np.float32)
    return Influence(state.hexdigest()[:16], in_percent, 100 * score)


# ---------------------------------------------------------------------------------------- p values
def holm(p: ArrayLike) -> Floats:
    """Holm's adjusted p values (1979, Scandinavian Journal of Statistics 6): reject where < level.

    The chance of even one false rejection among all of them is then below the level, whatever their
    dependence; never less powerful than Bonferroni. [M] in [0, 1] -> float64 [M] in [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def two_sided(difference: ArrayLike, variance: ArrayLike, freedom: ArrayLike = np.inf) -> Floats:
    """The p value of differences under Student's t; 1 where a variance is 0.

    Equal predictions have a variance of exactly 0, and so may a sample that is too small: in both
    cases there is no evidence of a difference.
    """
    from scipy.special import stdtr  # scipy.stats takes seconds to import, for the same numbers

    difference, variance = np.asarray(difference, float), np.asarray(variance, float)
    some = variance > 0
    t = np.abs(difference) / np.sqrt(np.where(some, variance, 1.0))
    return np.where(some, 2 * stdtr(freedom, -t), 1.0)


def satterthwaite(parts: ArrayLike, freedoms: Sequence[ArrayLike]) -> Floats:
    """Degrees of freedom of a sum of independent variances (Satterthwaite, 1946).

    Args:
        parts: [K, ...] variances.
        freedoms: K degrees of freedom, each a number or of a shape that goes with a part's.

    Returns:
        [...]; infinite where all parts are 0.
    """
    parts = np.asarray(parts, float)
    each = zip(parts, freedoms, strict=True)
    weighed = np.sum([part**2 / np.asarray(freedom, float) for part, freedom in each], axis=0)
    total = parts.sum(axis=0) ** 2
    freedom: Floats = np.divide(total, weighed, out=np.full_like(total, np.inf), where=weighed > 0)
    return freedom
