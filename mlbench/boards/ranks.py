"""Which rows of a board can be told apart, and the ranks that follow.

A row's rank is 1 + the number of rows that are significantly better: the best place that the data
do not rule out (the lower end of a confidence set of ranks, as in Mogstad, Romano, Shaikh and
Wilhelm, 2024, Review of Economic Studies 91). Every pair is tested, and the p values of a board are
adjusted by Holm, so that with 95 % confidence no row of it stands below another wrongly. Neighbours
are not chained into groups: "cannot be told apart" is not transitive, and a chain of small steps
would tie the first row to the last.

The variance of a difference has two parts:

* images: both rows saw the same, so that only what each image does to the difference counts
  (``mlbench.metrics.influence``, averaged over the seeds of a row). The bootstrap would need draws
  by the ten thousand for one pair to pass Holm on a board of forty rows; this is one pass per run.
* training: the variance between seeds, pooled over the rows of the board that have several and
  divided by the seeds of either row. A row that varies more than the others can explain (an F test,
  Bonferroni over the rows) is left out of the pool and has its own, so that one method that fails
  at every other seed does not hide the differences of all others. Where no row has several, it is
  unknown and left out, and the board says so: its ranks then speak of the trained models, not of
  the methods.

Student's t with Satterthwaite's degrees of freedom gives the p value. A row without predictions has
its image variance from the interval in its records, and its differences that of two independent
rows: it is told apart from fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.significance import holm, satterthwaite, two_sided
from mlbench.store import Influence
from mlbench.types import RunRecord

UNSTEADY = 0.01
"""The level at which a row's variance between seeds is not that of the others."""
LEVEL = 0.05
"""Rows are told apart where Holm's adjusted p value is below it."""
BLOCK = 4096
"""Images whose influences are held in double precision at once."""
NORMAL_95 = 1.959964
"""Half the width of a 95 % interval in standard deviations."""
WORST, BEST = 0.0, 100.0
"""Between which mAP lies."""

Floats = NDArray[np.float64]
Influences = Callable[[RunRecord], Influence | None]
"""What the images do to a run's mAP, as ``Store.influence`` tells."""


@dataclass(frozen=True)
class Training:
    """Standard deviation of mAP between seeds, in percent, and its degrees of freedom."""

    deviation: float = 0.0
    freedom: int = 0


@dataclass(frozen=True)
class Ranks:
    """How the R rows of a board compare.

    Attributes:
        best: [R] the best rank that is not ruled out: 1 + how many rows are better.
        worst: [R] the worst: R - how many rows are worse.
        wins: for every row a text of R characters: ``+`` it is better than that row, ``-`` worse,
            ``=`` they cannot be told apart, ``.`` itself.
        unpaired: how many rows have no usable predictions.
        training: the noise of training that was counted.
        unsteady: positions of rows that vary more, and have their own.
    """

    best: tuple[int, ...]
    worst: tuple[int, ...]
    wins: tuple[str, ...]
    unpaired: int
    training: Training
    unsteady: tuple[int, ...] = ()


def rank(rows: Sequence[Sequence[RunRecord]], influences: Influences | None) -> Ranks:
    """Compare all pairs of rows.

    Args:
        rows: R rows of one board: runs with scores that differ in their seed alone.
        influences: where those of their predictions are had; None compares by intervals only.
    """
    if not rows:
        return Ranks((), (), (), 0, Training())
    scores = np.array([np.mean(_maps(row)) for row in rows])
    found = [_mean_influence(row, influences) for row in rows]
    training = pooled(rows)
    noises = _Noises(rows, training)
    p = _p_values(scores, _covariance(rows, found), noises, _images(rows))
    upper = np.triu_indices(len(rows), 1)
    adjusted = np.ones_like(p)
    adjusted[upper] = holm(p[upper])
    told_apart = np.minimum(adjusted, adjusted.T) < LEVEL
    better = told_apart & (scores[:, None] > scores[None, :])
    return Ranks(
        best=tuple(1 + int(n) for n in better.sum(axis=0)),
        worst=tuple(len(rows) - int(n) for n in better.sum(axis=1)),
        wins=_signs(better),
        unpaired=sum(one is None for one in found),
        training=training,
        unsteady=tuple(np.flatnonzero(~noises.steady_R).tolist()),
    )


def pooled(rows: Sequence[Sequence[RunRecord]]) -> Training:
    """The spread between seeds over the rows that have several; 0 degrees of freedom if none.

    Rows are left out for as long as the most spread one varies more than the rest can explain.
    """
    spreads = sorted((own(row) for row in rows if len(row) > 1), key=lambda one: one.deviation)
    while len(spreads) > 1 and _unsteady(spreads[-1], _together(spreads[:-1]), len(spreads)):
        spreads.pop()
    return _together(spreads)


def own(row: Sequence[RunRecord]) -> Training:
    """The spread between the seeds of one row; 0 degrees of freedom with one seed."""
    if len(row) < 2:
        return Training()
    return Training(float(np.std(_maps(row), ddof=1)), len(row) - 1)


def training_of(row: Sequence[RunRecord], rows: Sequence[Sequence[RunRecord]]) -> Training:
    """The noise that holds for a row of a board: that of all ``rows``, or its own if unsteady."""
    return _Noises(rows, pooled(rows)).each[list(rows).index(row)]


def _together(spreads: Sequence[Training]) -> Training:
    freedom = sum(one.freedom for one in spreads)
    squares = sum(one.deviation**2 * one.freedom for one in spreads)
    return Training((squares / freedom) ** 0.5, freedom) if freedom else Training()


def _unsteady(one: Training, others: Training, rows: int) -> bool:
    from scipy.special import fdtrc

    if not one.freedom or not others.deviation:  # seeds that change nothing explain nothing
        return False
    ratio = (one.deviation / others.deviation) ** 2
    return bool(fdtrc(one.freedom, others.freedom, ratio) * rows < UNSTEADY)


class _Noises:
    """The variances of training of the rows' means: the pool's part, and that of unsteady rows."""

    def __init__(self, rows: Sequence[Sequence[RunRecord]], pool: Training) -> None:
        several, mine = sum(len(row) > 1 for row in rows), [own(row) for row in rows]
        each = [one if _unsteady(one, pool, several) else pool for one in mine]
        self.each = each
        self.steady_R = np.array([one is pool for one in each])
        variance_R = np.array([one.deviation**2 for one in each]) / _seeds(rows)
        self.freedom_R = np.array([max(one.freedom, 1) for one in each], dtype=np.float64)
        self.pool_freedom = max(pool.freedom, 1)
        self.pooled_R = np.where(self.steady_R, variance_R, 0.0)
        self.own_R = np.where(self.steady_R, 0.0, variance_R)
        self.variance_R = variance_R


def intervals(rows: Sequence[Sequence[RunRecord]]) -> list[tuple[float, float]]:
    """The 95 % interval of the mean mAP of every row: on other images, after another training.

    To either side it is half the bootstrap interval over images, the mean of that of the row's
    seeds, as they see the same images; and, where the board has rows of several seeds, their pooled
    variance for the row's number of seeds, with Student's t at Satterthwaite's degrees of freedom.
    Without such rows it is the bootstrap's alone.

    Args:
        rows: R rows of one board: runs with scores that differ in their seed alone.

    Returns:
        [R] of (low, high) in percent.
    """
    from scipy.special import stdtrit

    means_R = np.array([np.mean(_maps(row)) for row in rows])
    images_2R = np.array([_sides(row) for row in rows]).reshape(-1, 2).T
    noises = _Noises(rows, pooled(rows))
    noise_R = NORMAL_95**2 * noises.variance_R
    variances_22R = np.stack([images_2R**2, np.broadcast_to(noise_R, images_2R.shape)])
    freedom_2R = satterthwaite(variances_22R, [np.inf, noises.freedom_R])
    wider_2R = stdtrit(freedom_2R, 1 - LEVEL / 2) / stdtrit(np.inf, 1 - LEVEL / 2)
    below_R, above_R = wider_2R * np.sqrt(variances_22R.sum(axis=0))
    bounds = zip(means_R - below_R, means_R + above_R, strict=True)
    return [(max(float(low), WORST), min(float(high), BEST)) for low, high in bounds]


def _sides(row: Sequence[RunRecord]) -> tuple[float, float]:
    """How far the intervals over images reach below and above mAP, over the seeds of a row."""
    found = [r.scores for r in row if r.scores is not None]
    below, above = ([s.mAP - s.mAP_low for s in found], [s.mAP_high - s.mAP for s in found])
    return max(float(np.mean(below)), 0.0), max(float(np.mean(above)), 0.0)


def _maps(row: Sequence[RunRecord]) -> list[float]:
    return [record.scores.mAP for record in row if record.scores is not None]


def _seeds(rows: Sequence[Sequence[RunRecord]]) -> Floats:
    return np.array([len(row) for row in rows], dtype=np.float64)


def _images(rows: Sequence[Sequence[RunRecord]]) -> int:
    return rows[0][0].test_images


def _mean_influence(row: Sequence[RunRecord], influences: Influences | None) -> Influence | None:
    """The mean over the seeds of a row; None if one is missing, or saw other images."""
    found = [influences(record) for record in row] if influences is not None else []
    some = [one for one in found if one is not None]
    if len(some) < len(row) or len({one.images for one in some}) > 1:
        return None
    mean = np.mean([one.values for one in some], axis=0)
    return replace(some[0], values=mean, mAP=float(np.mean([one.mAP for one in some])))


def _covariance(rows: Sequence[Sequence[RunRecord]], found: Sequence[Influence | None]) -> Floats:
    """[R, R] of the rows' mAPs over test images; 0 beside the diagonal where it is not known."""
    covariance = np.diag([_variance_of_interval(row) for row in rows])
    by_images: dict[str, list[int]] = {}
    for i, one in enumerate(found):
        if one is not None:
            by_images.setdefault(one.images, []).append(i)
    for group in by_images.values():
        values = [one.values for one in map(found.__getitem__, group) if one]
        n = len(values[0])
        total = np.zeros((len(group), len(group)))
        for start in range(0, n, BLOCK):
            # All of them as one array would be a second copy: 320 MB for 2,000 rows of COCO.
            block_RB = np.array([row[start : start + BLOCK] for row in values], np.float64)
            total += block_RB @ block_RB.T
        covariance[np.ix_(group, group)] = total * n / max(n - 1, 1)
    return covariance


def _variance_of_interval(row: Sequence[RunRecord]) -> float:
    """From the records' intervals: seeds see the same images, so more of them shrink it little."""
    widths = [r.scores.mAP_high - r.scores.mAP_low for r in row if r.scores is not None]
    return float((np.mean(widths) / 2 / NORMAL_95) ** 2)


def _p_values(scores: Floats, covariance: Floats, noises: _Noises, images: int) -> Floats:
    own = np.diag(covariance)
    of_images = own[:, None] + own[None, :] - 2 * covariance
    # Equal predictions leave a rounding error, which is no variance.
    of_images[of_images < 1e-10 * (own[:, None] + own[None, :])] = 0
    pool = noises.pooled_R[:, None] + noises.pooled_R[None, :]
    first, second = np.broadcast_arrays(noises.own_R[:, None], noises.own_R[None, :])
    freedoms = [noises.freedom_R[:, None], noises.freedom_R[None, :]]
    parts = np.stack([of_images, pool, first, second])
    freedom = satterthwaite(parts, [max(images - 1, 1), noises.pool_freedom, *freedoms])
    return two_sided(scores[:, None] - scores[None, :], parts.sum(axis=0), freedom)


def _signs(better: NDArray[np.bool_]) -> tuple[str, ...]:
    signs = np.where(better, "+", np.where(better.T, "-", "="))
    np.fill_diagonal(signs, ".")
    return tuple("".join(row) for row in signs)
