"""How well scores rank: images within a class (AUC), and labels within an image.

An unknown entry takes part in no ranking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix
from mlbench.types import Targets

BLOCK = 1 << 22
"""Comparisons of scores that are held at once."""


def auc(scores: NDArray[np.floating[Any]], targets: Targets) -> float:
    """Area under the ROC curve: how often a positive scores above a negative (Mann and Whitney).

    Equal scores count half.

    Args:
        scores: of any shape; all entries are one ranking.
        targets: int8 of the same shape.

    Returns:
        In [0, 1]; NaN where there is no positive or no negative. NaN stays in this package.
    """
    positives, negatives = scores[targets == 1], np.sort(scores[targets == 0])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum()
    up_to = np.searchsorted(negatives, positives, side="right").sum()
    return float((below + up_to) / (2 * len(positives) * len(negatives)))


def auc_by_class(scores: ScoreMatrix, targets: Targets) -> NDArray[np.float64]:
    """``auc`` of each class [C].

    Args:
        scores: [N, C].
        targets: int8 [N, C] in {1, 0, -1}.
    """
    return np.array([auc(s, t) for s, t in zip(scores.T, targets.T, strict=True)])


class LabelRanking(NamedTuple):
    """Means over images.

    Attributes:
        lrap: label ranking average precision: over the labels of an image, the mean fraction of
            them among all labels that score at least as high (Tsoumakas et al., 2010). In [0, 1].
        coverage: how far down the ranking one must go to have all labels, in labels.
        loss: fraction of the pairs of a present and an absent label that are not in order; equal
            scores are not in order. In [0, 1].
    """

    lrap: float
    coverage: float
    loss: float


def label_ranking(scores: ScoreMatrix, targets: Targets) -> LabelRanking:
    """How well the labels of an image are ranked (Schapire and Singer, 2000).

    As in scikit-learn, an image without a present label has LRAP 1, coverage 0 and loss 0; one
    without an absent label has LRAP 1 and loss 0.

    Args:
        scores: [N, C].
        targets: int8 [N, C] in {1, 0, -1}.
    """
    present_N = np.count_nonzero(targets == 1, axis=1)
    absent_N = np.count_nonzero(targets == 0, axis=1)
    share_N, depth_N = np.zeros(len(scores)), np.zeros(len(scores))
    inverted_N = np.zeros(len(scores))
    for image_P, hits_P, ranked_P in _ranks(scores, targets):
        np.add.at(share_N, image_P, hits_P / ranked_P)
        np.maximum.at(depth_N, image_P, ranked_P)
        np.add.at(inverted_N, image_P, ranked_P - hits_P)
    lrap_N = np.where(present_N == 0, 1.0, share_N / np.maximum(present_N, 1))
    loss_N = inverted_N / np.maximum(present_N * absent_N, 1)
    return LabelRanking(float(lrap_N.mean()), float(depth_N.mean()), float(loss_N.mean()))


def _ranks(
    scores: ScoreMatrix, targets: Targets
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Blocks of positive entries: image, positives and known labels that score as high or more."""
    images, labels = np.nonzero(targets == 1)
    known = np.where(targets >= 0, scores, -np.inf)
    positive = np.where(targets == 1, scores, -np.inf)
    step = max(1, BLOCK // scores.shape[1])
    for start in range(0, len(images), step):
        image = images[start : start + step]
        own = scores[image, labels[start : start + step], None]
        hits = np.count_nonzero(positive[image] >= own, axis=1)
        yield image, hits, np.count_nonzero(known[image] >= own, axis=1)
