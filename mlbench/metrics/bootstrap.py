"""The scores of a record, and the bootstrap: how far mAP would move with other test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import Floats, ScoreMatrix, average_precision, check
from mlbench.metrics.precision_recall import precision_recall_f1
from mlbench.types import Scores, Targets

if TYPE_CHECKING:
    from torch import Tensor

INTERVAL = (2.5, 97.5)
"""Percentiles of the draws that bound the 95 % interval."""

BLOCK = 1 << 21
"""Image counts held at once (float32: 8 MiB): they fit the processor's cache and bound memory."""


def score(
    logits: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> tuple[Scores, tuple[float | None, ...]]:
    """Compute the scores of a record: the canonical protocol, in percent.

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
        MeasureError: the shapes differ, a logit is not finite, or no class has a positive.
    """
    values, by_class = point_scores(logits, targets)
    overall = by_class[~np.isnan(by_class)].mean()
    draws = bootstrap_map(logits, targets, resamples, seed)
    # A draw repeats images, and a repeated positive raises the AP of a rare label: the draws lie
    # above the score by several points where labels are rare. Only their spread is used.
    low, high = np.percentile(draws - draws.mean() + overall, INTERVAL)
    scores = Scores.model_validate(
        values | {"mAP_low": 100 * float(low), "mAP_high": 100 * float(high)}
    )
    return scores, tuple(None if np.isnan(ap) else 100 * float(ap) for ap in by_class)


def point_scores(logits: ScoreMatrix, targets: Targets) -> tuple[dict[str, float], Floats]:
    """Compute the scores of a record without the interval.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        The numbers in percent by their names in ``Scores``, and AP [C] in [0, 1], NaN where a class
        has no positive.
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


def bootstrap_map(
    scores: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> Floats:
    """The mAP [resamples] of draws of N images with replacement (Efron, 1979), in [0, 1].

    A class without a positive in a draw is left out of that draw's mean; a draw without any
    positive is drawn again. For arguments see ``bootstrap_average_precision``.
    """
    return mean_over_classes(bootstrap_average_precision(scores, targets, resamples, seed))


def bootstrap_average_precision(
    scores: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> Floats:
    """The AP of every class in draws of N images with replacement.

    A draw is a vector of integer weights, so that each class is sorted once: the weights between
    two of its positives are summed a segment at a time for many draws together. Equal, draw by
    draw, to ``average_precision`` on the repeated images. The draws depend on the seed, on N and on
    which images have a positive, not on the scores: runs on the same images share their draws.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        float64 [resamples, C] in [0, 1]; NaN where no positive of the class was drawn.

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class has a positive.
    """
    check(scores, targets)
    present = np.flatnonzero((targets == 1).any(axis=0))
    rankings = [_ClassRanking(scores[:, c], targets[:, c]) for c in present]
    found_CR = np.full((scores.shape[1], resamples), np.nan)
    start = 0
    for weights_NR in _draws((targets == 1).any(axis=1), resamples, seed):
        block = slice(start, start := start + weights_NR.shape[1])
        for c, ranking in zip(present, rankings, strict=True):
            found_CR[c, block] = ranking.average_precision(weights_NR)
    return found_CR.T


def mean_over_classes(found_RC: Floats) -> Floats:
    """The mAP [R] of draws [R, C]: classes without a positive in a draw are left out of it."""
    return np.asarray(np.nanmean(found_RC.T, axis=0))


def _draws(labelled: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[Tensor]:
    """Blocks [N, R] of how often each image was drawn; the draws do not depend on the blocks."""
    import torch

    rng, n = np.random.default_rng(seed), len(labelled)
    block = max(1, min(resamples, BLOCK // n))
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), n), dtype=np.float32)
        for row in weights:
            row[:] = _draw(rng, n)
            while not row[labelled].any():
                row[:] = _draw(rng, n)
        yield torch.from_numpy(np.ascontiguousarray(weights.T))


def _draw(rng: np.random.Generator, n: int) -> NDArray[np.intp]:
    return np.bincount(rng.integers(0, n, n), minlength=n)


class _ClassRanking:
    """The images of one class in order of score, cut after each distinct score of a positive."""

    def __init__(self, scores: ScoreMatrix, targets: Targets) -> None:
        import torch

        positives, known = np.flatnonzero(targets == 1), np.flatnonzero(targets >= 0)
        levels = -np.unique(-scores[positives])  # distinct scores of positives, descending
        self.positives = _by_score(scores, positives)
        self.known = _by_score(scores, known)
        self.first_positive = torch.from_numpy(_starts(scores[self.positives.numpy()], levels))
        self.first_known = torch.from_numpy(_starts(scores[self.known.numpy()], levels))
        below = np.searchsorted(-scores[self.known.numpy()], -levels[-1], side="right")
        self.known = self.known[: int(below)]  # images ranked below every positive play no part

    def average_precision(self, weights_NR: Tensor) -> Floats:
        """AP [R] under integer weights; NaN where no positive was drawn."""
        hits_LR = _segment_sums(weights_NR, self.positives, self.first_positive)
        ranked_LR = _segment_sums(weights_NR, self.known, self.first_known).cumsum_(0)
        precision_LR = hits_LR.cumsum(0).div_(ranked_LR.clamp_(min=1))
        drawn_R = hits_LR.sum(0)
        average: Floats = (precision_LR.mul_(hits_LR).sum(0) / drawn_R).numpy()
        return average


def _by_score(scores: ScoreMatrix, images: NDArray[np.intp]) -> Tensor:
    import torch

    return torch.from_numpy(images[np.argsort(-scores[images], kind="stable")])


def _starts(descending: ScoreMatrix, levels: ScoreMatrix) -> NDArray[np.intp]:
    """Where the segment of each level begins: after all scores of the level before."""
    ends = np.searchsorted(-descending, -levels, side="right")
    return np.concatenate([[0], ends[:-1]])


def _segment_sums(weights_NR: Tensor, images: Tensor, starts: Tensor) -> Tensor:
    """The sum of the weights of each segment of ``images``, float64 [L, R].

    An embedding bag does this in one parallel pass; float32 sums of counts are exact up to 2^24.
    """
    from torch.nn import functional

    return functional.embedding_bag(images, weights_NR, starts, mode="sum").double()
