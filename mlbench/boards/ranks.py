"""Ranks of the rows of a board, from tests of all pairs of rows.

The rank of a row is 1 + the number of rows that are significantly better: the best rank that the
data do not rule out (the lower end of a confidence set of ranks, as in Mogstad, Romano, Shaikh and
Wilhelm, 2024, Review of Economic Studies 91). Every pair is tested, with Holm's correction over all
pairs of the board, so that with 95 % confidence no row is wrongly ranked below another. Rows are
not grouped into ties: not being significantly different is not transitive, and a chain of small
steps would tie the first row to the last.

The variance of a difference has two parts:

* images: both rows were scored on the same images, so the variance is that of the influence of each
  image on the difference (``mlbench.metrics.paired``, averaged over the seeds of a row). This takes
  one pass per run; a bootstrap would need tens of thousands of draws for one pair to pass Holm's
  correction on a board of forty rows.
* training: the variance between seeds, pooled over the rows that have several and divided by the
  number of seeds of each row. If no row has several seeds, this part is unknown and omitted, and
  the board says so: its ranks then compare trained models, not methods.

Student's t with Satterthwaite's degrees of freedom gives the p value. A row without predictions
takes its image variance from the interval in its records, as if it had been scored on different
images; fewer of its differences are significant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlbench.metrics.average_precision import Floats
from mlbench.metrics.paired import Influence, holm, satterthwaite, two_sided
from mlbench.types import RunRecord

LEVEL = 0.05
"""Differences are significant if the p value adjusted by Holm is below this."""
BLOCK = 4096
"""Images per block of influences in double precision."""
NORMAL_95 = 1.959964
"""Half the width of a 95 % interval, in standard deviations."""
WORST, BEST = 0.0, 100.0
"""Bounds of mAP."""

Influences = Callable[[RunRecord], Influence | None]
"""Function that returns the influence of each image on the mAP of a run (``Store.influence``)."""


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation of mAP between seeds, in percent; degrees of freedom, 0 if unknown."""

    deviation: float = 0.0
    freedom: int = 0


@dataclass(frozen=True)
class Ranks:
    """The comparison of the R rows of a board.

    Attributes:
        best: [R] best rank that is not ruled out: 1 + the number of significantly better rows.
        worst: [R] worst rank that is not ruled out: R - the number of significantly worse rows.
        wins: for every row a string of R characters: ``+`` it is significantly better than that
            row, ``-`` significantly worse, ``=`` neither, ``.`` the row itself.
        unpaired: number of rows without usable predictions.
    """

    best: tuple[int, ...]
    worst: tuple[int, ...]
    wins: tuple[str, ...]
    unpaired: int
    noise: SeedNoise


def rank(rows: Sequence[Sequence[RunRecord]], influences: Influences | None) -> Ranks:
    """Compare all pairs of the R rows of a board; the runs of a row differ in their seed alone.

    Without ``influences``, rows are compared by their intervals only.
    """
    if not rows:
        return Ranks((), (), (), 0, SeedNoise())
    scores = np.array([np.mean(_maps(row)) for row in rows])
    found = [_mean_influence(row, influences) for row in rows]
    noise = pooled(rows)
    p = _p_values(scores, _covariance(rows, found), noise, rows)
    upper = np.triu_indices(len(rows), 1)
    adjusted = np.ones_like(p)
    adjusted[upper] = holm(p[upper])
    significant = np.minimum(adjusted, adjusted.T) < LEVEL
    better = significant & (scores[:, None] > scores[None, :])
    signs = np.where(better, "+", np.where(better.T, "-", "="))
    np.fill_diagonal(signs, ".")
    return Ranks(
        best=tuple(1 + int(n) for n in better.sum(axis=0)),
        worst=tuple(len(rows) - int(n) for n in better.sum(axis=1)),
        wins=tuple(map("".join, signs)),
        unpaired=sum(one is None for one in found),
        noise=noise,
    )


def pooled(rows: Sequence[Sequence[RunRecord]]) -> SeedNoise:
    """Pool the variance between seeds over the rows that have several."""
    several = [np.asarray(_maps(row)) for row in rows if len(row) > 1]
    freedom = sum(len(maps) - 1 for maps in several)
    squares = sum(float(((maps - maps.mean()) ** 2).sum()) for maps in several)
    return SeedNoise((squares / freedom) ** 0.5, freedom) if freedom else SeedNoise()


def intervals(rows: Sequence[Sequence[RunRecord]]) -> list[tuple[float, float]]:
    """Return the 95 % interval of the mean mAP of every row, over test images and training.

    Each side combines two variances: that of the bootstrap interval over images (averaged over the
    seeds of the row, which see the same images), and the pooled variance between seeds, divided by
    the number of seeds of the row. Student's t has Satterthwaite's degrees of freedom. If no row
    has several seeds, this is the bootstrap interval. Returns R pairs (low, high) in percent.
    """
    from scipy.special import stdtrit

    means_R = np.array([np.mean(_maps(row)) for row in rows])
    images_2R = np.array([_sides(row) for row in rows]).reshape(-1, 2).T
    noise = pooled(rows)
    noise_R = NORMAL_95**2 * noise.deviation**2 / np.array([len(row) for row in rows])
    variances_22R = np.stack([images_2R**2, np.broadcast_to(noise_R, images_2R.shape)])
    freedom_2R = satterthwaite(variances_22R, [np.inf, max(noise.freedom, 1)])
    wider_2R = stdtrit(freedom_2R, 1 - LEVEL / 2) / stdtrit(np.inf, 1 - LEVEL / 2)
    below_R, above_R = wider_2R * np.sqrt(variances_22R.sum(axis=0))
    bounds = zip(means_R - below_R, means_R + above_R, strict=True)
    return [(max(float(low), WORST), min(float(high), BEST)) for low, high in bounds]


def _sides(row: Sequence[RunRecord]) -> tuple[float, float]:
    """Return the mean distances from mAP down and up to the ends of the intervals over images."""
    found = [r.scores for r in row if r.scores is not None]
    below, above = ([s.mAP - s.mAP_low for s in found], [s.mAP_high - s.mAP for s in found])
    return max(float(np.mean(below)), 0.0), max(float(np.mean(above)), 0.0)


def _maps(row: Sequence[RunRecord]) -> list[float]:
    return [record.scores.mAP for record in row if record.scores is not None]


def _mean_influence(row: Sequence[RunRecord], influences: Influences | None) -> Influence | None:
    """Average over the seeds of a row; None if one is missing or has different images."""
    found = [influences(record) for record in row] if influences is not None else []
    some = [one for one in found if one is not None]
    if len(some) < len(row) or len({one.images for one in some}) > 1:
        return None
    mean = np.mean([one.values for one in some], axis=0)
    return replace(some[0], values=mean, mAP=float(np.mean([one.mAP for one in some])))


def _covariance(rows: Sequence[Sequence[RunRecord]], found: Sequence[Influence | None]) -> Floats:
    """Return the covariance [R, R] of mAP over test images; 0 off the diagonal if unknown."""
    scores = [[record.scores for record in row if record.scores is not None] for row in rows]
    widths_R = np.array([np.mean([s.mAP_high - s.mAP_low for s in row]) for row in scores])
    covariance = np.diag((widths_R / 2 / NORMAL_95) ** 2)  # the seeds of a row share its images
    by_images: dict[str, list[int]] = {}
    for i, one in enumerate(found):
        if one is not None:
            by_images.setdefault(one.images, []).append(i)
    for group in by_images.values():
        values = [one.values for one in map(found.__getitem__, group) if one]
        n = len(values[0])
        total = np.zeros((len(group), len(group)))
        for start in range(0, n, BLOCK):
            # One array of all images would be a second copy: 320 MB for 2,000 rows of COCO.
            block_RB = np.array([row[start : start + BLOCK] for row in values], np.float64)
            total += block_RB @ block_RB.T
        covariance[np.ix_(group, group)] = total * n / max(n - 1, 1)
    return covariance


def _p_values(
    scores: Floats, covariance: Floats, noise: SeedNoise, rows: Sequence[Sequence[RunRecord]]
) -> Floats:
    """Return the two-sided p values [R, R] of the differences between rows."""
    of_rows = np.diag(covariance)
    sums = of_rows[:, None] + of_rows[None, :]
    of_images = sums - 2 * covariance
    of_images[of_images < 1e-10 * sums] = 0  # equal predictions leave a rounding error
    of_training = noise.deviation**2 / np.array([len(row) for row in rows])
    parts = np.stack([of_images, of_training[:, None] + of_training[None, :]])
    freedom = satterthwaite(parts, [max(rows[0][0].test_images - 1, 1), max(noise.freedom, 1)])
    return two_sided(scores[:, None] - scores[None, :], parts.sum(axis=0), freedom)
