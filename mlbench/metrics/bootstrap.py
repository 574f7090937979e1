"""The scores of a record, and the bootstrap: how far mAP would move with other test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import (
    Floats,
    ScoreMatrix,
    average_precision,
    check,
    count_states,
    scored_classes,
)
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.text import shorten
from mlbench.types import Scores, Targets, stream

if TYPE_CHECKING:
    from torch import Tensor

Count = Callable[[int, int], None]
"""``Progress.count``."""

INTERVAL = (2.5, 97.5)
"""Percentiles of the draws that bound the 95 % interval."""

BLOCK = 1 << 21
"""Image counts held at once (float32: 8 MiB): they fit the processor's cache and bound memory."""

SATURATED, TIED = math.log(0.999 / 0.001), 0.01
"""Ties at a logit of probability 0.999 or more are remarked if 1 % of a label's scores tie."""


def score(
    logits: ScoreMatrix, targets: Targets, resamples: int = 1000, count: Count = lambda *_: None
) -> tuple[Scores, tuple[float | None, ...]]:
    """Compute the scores of a record: the canonical protocol, in percent.

    mAP is the mean of the non-interpolated AP over the ``scored_classes``, with its 95 % bootstrap
    interval over images, centred; P, R and F1 are taken at probability 0.5 (logit 0)
    and, with the same threshold, for the three highest labels of an image. Unknown entries count
    nowhere.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: draws of the bootstrap.
        count: is told how far the bootstrap is, which takes an hour for thousands of labels.

    Returns:
        The scores, and the AP of each of the C classes: None for a class without an AP.

    Raises:
        MeasureError: the shapes differ, a logit is not finite, or no class can be scored.
    """
    values, by_class = point_scores(logits, targets)
    overall = by_class[~np.isnan(by_class)].mean()
    found_RC = bootstrap_average_precision(logits, targets, resamples, count=count)
    draws = mean_over_classes(found_RC)
    # A draw repeats images, and a repeated positive raises the AP of a rare label: the draws lie
    # above the score by several points where labels are rare. Only their spread is used.
    low, high = np.percentile(draws - draws.mean() + overall, INTERVAL)
    scores = Scores.model_validate(
        values | {"mAP_low": 100 * float(low), "mAP_high": 100 * float(high)}
    )
    return scores, tuple(None if np.isnan(ap) else 100 * float(ap) for ap in by_class)


def point_scores(logits: ScoreMatrix, targets: Targets) -> tuple[dict[str, float], Floats]:
    """Compute the scores of a record without the interval.

    Returns:
        The numbers in percent by their names in ``Scores``, and AP [C] in [0, 1], NaN for a class
        without an AP.
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


def remarks(logits: ScoreMatrix, targets: Targets, names: Sequence[str]) -> list[str]:
    """What a reader of the scores should know: labels left out of means, and saturated scores."""
    found = []
    left_out = np.flatnonzero(~scored_classes(targets)).tolist()
    if left_out:
        found.append(
            f"{len(left_out)} of {len(names)} labels have no AP and are left out of all means over "
            "labels, as they are not known to be both present in an image and absent in another: "
            f"{count_states(targets, left_out, names)}"
        )
    tied_C = saturation(logits, targets)
    worst = [c for c in np.argsort(-tied_C, kind="stable").tolist() if tied_C[c] > TIED]
    if worst:
        shares = shorten([f"{names[c]} ({tied_C[c]:.1%})" for c in worst])
        found.append(
            f"more than {TIED:.0%} of the scores of {len(worst)} of {len(names)} labels tie at "
            f"probability 0 or 1: {shares}. Images that tie are not ranked, and AP is another than "
            "that of the model: keep logits in float32, or probabilities with more digits"
        )
    return found


def saturation(logits: ScoreMatrix, targets: Targets) -> Floats:
    """The fraction of each label's scores that tie at its lowest or highest one [C].

    Ties count only within 0.001 of probability 0 or 1, where the precision of float16 ends.
    """
    known = targets >= 0
    tied_C = np.zeros(targets.shape[1])
    for side in (logits, -logits):
        highest_C = np.where(known, side, -np.inf).max(axis=0)
        tied = np.count_nonzero((side == highest_C) & known, axis=0)
        tied_C += np.where((highest_C >= SATURATED) & (tied > 1), tied, 0)
    return np.asarray(tied_C / np.maximum(known.sum(axis=0), 1))


def bootstrap_average_precision(
    scores: ScoreMatrix,
    targets: Targets,
    resamples: int = 1000,
    seed: int = 0,
    count: Count = lambda *_: None,
) -> Floats:
    """The AP of every class in draws of N images with replacement (Efron, 1979).

    A draw is a vector of integer weights, so that each class is sorted once: the weights between
    two of its positives are summed a segment at a time for many draws together. Each draw equals
    ``average_precision`` on the repeated images. The draws depend on the seed and the targets, not
    on the scores: runs on the same images share their draws. A draw in which no class has an AP is
    drawn again.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: number of draws.
        seed: seed of the draws.
        count: is told how many APs it has, and of how many.

    Returns:
        float64 [resamples, C] in [0, 1]; NaN where the class has no AP on the drawn images.

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class can be scored.
    """
    check(scores, targets)
    scored = np.flatnonzero(scored_classes(targets))
    rankings, start, total = [], 0, len(scored) * resamples
    for c in scored:
        count(0, total)
        rankings.append(_ClassRanking(scores[:, c], targets[:, c]))
    found_CR = np.full((scores.shape[1], resamples), np.nan)
    for weights_NR in _draws(targets[:, scored], resamples, seed):
        block = slice(start, start + weights_NR.shape[1])
        for i, (c, ranking) in enumerate(zip(scored, rankings, strict=True)):
            found_CR[c, block] = ranking.average_precision(weights_NR)
            count(start * len(scored) + (i + 1) * weights_NR.shape[1], total)
        start = block.stop
    return found_CR.T


def mean_over_classes(found_RC: Floats) -> Floats:
    """The mAP [R] of draws [R, C]: classes without an AP in a draw are left out of it."""
    return np.asarray(np.nanmean(found_RC.T, axis=0))


def _draws(targets: Targets, resamples: int, seed: int) -> Iterator[Tensor]:
    """Blocks [N, R] of how often each image was drawn; the draws do not depend on the blocks."""
    import torch

    rng, n = stream("bootstrap", seed), len(targets)
    frequent = np.argsort(-(targets == 1).sum(axis=0), kind="stable")  # the first usually decides
    states = [(targets[:, c] == 1, targets[:, c] == 0) for c in frequent]
    block = max(1, min(resamples, BLOCK // n))
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), n), dtype=np.float32)
        for row in weights:
            scored = False
            while not scored:
                row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
                scored = any(row[yes].any() and row[no].any() for yes, no in states)
        yield torch.from_numpy(np.ascontiguousarray(weights.T))


class _ClassRanking:
    """The images of one class in order of score, cut after each distinct score of a positive."""

    def __init__(self, scores: ScoreMatrix, targets: Targets) -> None:
        import torch

        self.negatives = torch.from_numpy(np.flatnonzero(targets == 0))
        levels = -np.unique(-scores[targets == 1])  # distinct scores of positives, descending
        self.positives, self.first_positive = _segments(scores, targets == 1, levels)
        self.known, self.first_known = _segments(scores, targets >= 0, levels)

    def average_precision(self, weights_NR: Tensor) -> Floats:
        """AP [R] under integer weights; NaN where no positive or no negative was drawn."""
        hits_LR = _segment_sums(weights_NR, self.positives, self.first_positive)
        ranked_LR = _segment_sums(weights_NR, self.known, self.first_known).cumsum_(0)
        precision_LR = hits_LR.cumsum(0).div_(ranked_LR.clamp_(min=1))
        drawn_R = hits_LR.sum(0)
        average_R = precision_LR.mul_(hits_LR).sum(0) / drawn_R
        perfect = (average_R == 1).nonzero().flatten()  # as it is without a negative
        if len(perfect):
            drawn = weights_NR[self.negatives][:, perfect].any(dim=0)
            average_R[perfect[~drawn]] = float("nan")
        average: Floats = average_R.numpy()
        return average


def _segments(
    scores: ScoreMatrix, among: NDArray[np.bool_], levels: ScoreMatrix
) -> tuple[Tensor, Tensor]:
    """The images down to the last level, by score, and where the segment of each level begins."""
    import torch

    images = np.flatnonzero(among)
    images = images[np.argsort(-scores[images], kind="stable")]
    ends = np.searchsorted(-scores[images], -levels, side="right")
    starts = np.concatenate([[0], ends[:-1]])
    return torch.from_numpy(images[: ends[-1]]), torch.from_numpy(starts)


def _segment_sums(weights_NR: Tensor, images: Tensor, starts: Tensor) -> Tensor:
    """The sum of the weights of each segment of ``images``, float64 [L, R].

    An embedding bag does this in one parallel pass; float32 sums of counts are exact up to 2^24.
    """
    from torch.nn import functional

    return functional.embedding_bag(images, weights_NR, starts, mode="sum").double()
