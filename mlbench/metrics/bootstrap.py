"""How far mAP would move had other images been drawn: the bootstrap over test images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix, check
from mlbench.types import Targets

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 21
"""Image counts held at once (float32: 8 MiB): near the processor, and memory is bounded."""


def bootstrap_map(
    scores: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """The mAP of ``resamples`` draws of N images with replacement (Efron, 1979).

    A draw is a vector of integer weights, so that each class is sorted once: what lies between two
    of its positives is summed a segment at a time for many draws together. Equal, draw by draw, to
    ``average_precision`` on the repeated images. A class that has no positive in a draw is left out
    of that draw's mean; a draw without any positive is drawn again.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: how many draws.
        seed: of the draws; equal seeds give equal draws for equal N and labels.

    Returns:
        float64 [resamples] in [0, 1].

    Raises:
        MeasureError: the arrays do not fit, a score is not finite, or no class has a positive.
    """
    return mean_over_classes(bootstrap_average_precision(scores, targets, resamples, seed))


def bootstrap_average_precision(
    scores: ScoreMatrix, targets: Targets, resamples: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """The AP of every class in each of the draws that ``bootstrap_map`` takes the mean of.

    The draws depend on the seed, on N and on which images have a positive, not on the scores: many
    runs on the same images share them without any being kept, and memory stays that of one run.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: how many draws.
        seed: of the draws.

    Returns:
        float64 [resamples, C] in [0, 1]; NaN where no positive of the class was drawn.

    Raises:
        MeasureError: the arrays do not fit, a score is not finite, or no class has a positive.
    """
    check(scores, targets)
    present = np.flatnonzero((targets == 1).any(axis=0))
    rankings = [_Ranking(scores[:, c], targets[:, c]) for c in present]
    found_CR = np.full((scores.shape[1], resamples), np.nan)
    start = 0
    for weights_NR in _draws((targets == 1).any(axis=1), resamples, seed):
        block = slice(start, start := start + weights_NR.shape[1])
        for c, ranking in zip(present, rankings, strict=True):
            found_CR[c, block] = ranking.average_precision(weights_NR)
    return found_CR.T


def mean_over_classes(found_RC: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mAP [R] of draws [R, C]: classes without a positive in a draw are left out of it."""
    mean: NDArray[np.float64] = np.nanmean(found_RC.T, axis=0)
    return mean


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


class _Ranking:
    """One class: its images in order of score, cut after each distinct score of a positive."""

    def __init__(self, scores: ScoreMatrix, targets: Targets) -> None:
        import torch

        positives, known = np.flatnonzero(targets == 1), np.flatnonzero(targets >= 0)
        levels = -np.unique(-scores[positives])  # distinct scores of positives, descending
        self.positives = _by_score(scores, positives)
        self.known = _by_score(scores, known)
        self.first_positive = torch.from_numpy(_starts(scores[self.positives.numpy()], levels))
        self.first_known = torch.from_numpy(_starts(scores[self.known.numpy()], levels))
        below = np.searchsorted(-scores[self.known.numpy()], -levels[-1], side="right")
        self.known = self.known[: int(below)]  # what ranks below every positive plays no part

    def average_precision(self, weights_NR: Tensor) -> NDArray[np.float64]:
        """AP [R] under integer weights; NaN where no positive was drawn."""
        hits_LR = _segment_sums(weights_NR, self.positives, self.first_positive)
        ranked_LR = _segment_sums(weights_NR, self.known, self.first_known).cumsum_(0)
        precision_LR = hits_LR.cumsum(0).div_(ranked_LR.clamp_(min=1))
        drawn_R = hits_LR.sum(0)
        average: NDArray[np.float64] = (precision_LR.mul_(hits_LR).sum(0) / drawn_R).numpy()
        return average


def _by_score(scores: ScoreMatrix, images: NDArray[np.intp]) -> Tensor:
    import torch

    return torch.from_numpy(images[np.argsort(-scores[images], kind="stable")])


def _starts(descending: ScoreMatrix, levels: ScoreMatrix) -> NDArray[np.intp]:
    """Where the segment of each level begins: after all scores of the level before."""
    ends = np.searchsorted(-descending, -levels, side="right")
    return np.concatenate([[0], ends[:-1]])


def _segment_sums(weights_NR: Tensor, images: Tensor, starts: Tensor) -> Tensor:
    """Float64 [L, R]: the weights of each segment of ``images``, summed.

    An embedding bag does this in one parallel pass; float32 sums of counts are exact up to 2^24.
    """
    from torch.nn import functional

    return functional.embedding_bag(images, weights_NR, starts, mode="sum").double()
