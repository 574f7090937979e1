"""What a difference and its uncertainty allow to say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def holm(p: ArrayLike) -> Floats:
    """Holm's adjusted p values (1979, Scandinavian Journal of Statistics 6): reject where < level.

    The chance of even one false rejection among all of them is then below the level, whatever their
    dependence; never less powerful than Bonferroni.

    Args:
        p: [M] in [0, 1].

    Returns:
        float64 [M] in [0, 1], in the order given.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def two_sided(difference: ArrayLike, variance: ArrayLike, freedom: ArrayLike = np.inf) -> Floats:
    """The p value of differences under Student's t; 1 where a variance is 0.

    A variance of exactly 0 is that of equal predictions, or of a sample too small to show any: in
    both cases nothing was told apart.

    Args:
        difference: any shape.
        variance: of the differences.
        freedom: degrees of freedom of the variances.
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
