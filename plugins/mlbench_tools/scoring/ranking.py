"""Scores as rankings and as probabilities: other APs, AUC, label ranking, partners, calibration.

An unknown entry counts nowhere. NaN marks what is not defined and never leaves this package.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.boards.ranks import NORMAL_95
from mlbench.metrics.average_precision import (
    Floats,
    ScoreMatrix,
    average_precision,
    precisions,
    scored_classes,
)
from mlbench.types import MeasureError, Targets

BLOCK = 1 << 22
"""Comparisons of scores that are held in memory at once."""

BINS = 15
"""Bins of equal width over [0, 1], as in Guo et al., ICML 2017."""


def interpolated_average_precision(scores: ScoreMatrix, targets: Targets) -> Floats:
    """AP [C] under the precision envelope of PASCAL VOC 2010 and later; NaN where there is none.

    The precision at a recall r becomes the highest precision at any recall >= r, at every point
    (not at eleven). SSGRL and Query2Label report it; it is never below ``average_precision``.
    """
    found = precisions(scores, targets)
    return np.array([np.maximum.accumulate(p).mean() if len(p) else np.nan for p, _ in found])


def eleven_point_average_precision(scores: ScoreMatrix, targets: Targets) -> Floats:
    """The AP [C] of PASCAL VOC 2007: the mean of the envelope at the recalls 0, 0.1, ..., 1.

    Everingham et al., IJCV 2010, section 4.2. A recall is compared with k/10 in whole numbers, so
    that 3 of 10 positives reach 0.3 on every machine.
    """
    found = precisions(scores, targets)
    return np.array([_at_eleven_recalls(*one) if len(one[0]) else np.nan for one in found])


def _at_eleven_recalls(precision_P: Floats, hits_P: NDArray[np.intp]) -> float:
    envelope_P = np.maximum.accumulate(precision_P)
    needed = -(-np.arange(11) * len(hits_P) // 10)
    reaching = np.searchsorted(-hits_P, -needed, side="right")  # hits fall along the array
    return float(envelope_P[reaching - 1].mean())


def auc(scores: NDArray[np.floating[Any]], targets: Targets) -> float:
    """Area under the ROC curve: how often a positive scores above a negative (Mann and Whitney).

    Equal scores count half.

    Args:
        scores: of any shape; all entries are one ranking.
        targets: int8 of the same shape.

    Returns:
        In [0, 1]; NaN without a positive or without a negative.
    """
    positives, negatives = scores[targets == 1], np.sort(scores[targets == 0])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left").sum()
    up_to = np.searchsorted(negatives, positives, side="right").sum()
    return float((below + up_to) / (2 * len(positives) * len(negatives)))


def label_ranking(scores: ScoreMatrix, targets: Targets) -> tuple[float, float, float]:
    """How well the labels are ranked: means of ``image_rankings`` over images with a known label.

    As in scikit-learn, an image without a present label has LRAP 1, coverage 0 and loss 0; one
    without an absent label has LRAP 1 and loss 0.
    """
    found = image_rankings(scores, targets)[:, (targets >= 0).any(axis=1)]
    lrap, depth, loss = np.where(np.isnan(found), 1.0, found).mean(axis=1).tolist()
    return lrap, depth, loss


def image_rankings(scores: ScoreMatrix, targets: Targets) -> Floats:
    """How well the labels of each image are ranked (Schapire and Singer, 2000).

    Args:
        scores: [N, C].
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        Three values of each image [3, N].

        * label ranking average precision: over the labels of an image, the mean fraction of them
          among all labels that score at least as high (Tsoumakas et al., 2010), in [0, 1]; NaN
          without a present label;
        * coverage error: how many labels from the top include all present ones;
        * ranking loss: the fraction of pairs of a present and an absent label that are not in
          order, in [0, 1]; equal scores are not in order.
    """
    present_N = np.count_nonzero(targets == 1, axis=1)
    absent_N = np.count_nonzero(targets == 0, axis=1)
    share_N, depth_N, inverted_N = np.zeros((3, len(scores)))
    images, labels = np.nonzero(targets == 1)
    step = max(1, BLOCK // scores.shape[1])
    for start in range(0, len(images), step):
        image_P = images[start : start + step]
        score_P1 = scores[image_P, labels[start : start + step], None]
        above_PC, target_PC = scores[image_P] >= score_P1, targets[image_P]
        hits_P = np.count_nonzero(above_PC & (target_PC == 1), axis=1)
        ranked_P = np.count_nonzero(above_PC & (target_PC >= 0), axis=1)
        np.add.at(share_N, image_P, hits_P / ranked_P)
        np.maximum.at(depth_N, image_P, ranked_P)
        np.add.at(inverted_N, image_P, ranked_P - hits_P)
    lrap_N = np.where(present_N == 0, np.nan, share_N / np.maximum(present_N, 1))
    return np.stack([lrap_N, depth_N, inverted_N / np.maximum(present_N * absent_N, 1)])


# ------------------------------------------------------------------------------- the usual partner
PARTNER_METRICS = ("AP", "AUC", "recall", "accuracy")


def usual_partners(targets: Targets) -> NDArray[np.intp]:
    """The label that is most often present with each label [C].

    Of equally frequent ones the first; -1 for a label that is never present with another.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
    """
    # Exact: counts of images stay far below 2^53, and products of floats use the BLAS.
    present_NC = (targets == 1).astype(np.float64)
    together_CC = present_NC.T @ present_NC
    np.fill_diagonal(together_CC, 0)
    return np.where(together_CC.max(axis=1) > 0, together_CC.argmax(axis=1), -1)


def partner_scores(logits: ScoreMatrix, targets: Targets, partner_C: NDArray[np.intp]) -> Floats:
    """Score each label apart on the images with and without its usual partner.

    This shows whether a model sees a label or only its usual partner. A label is scored if it has a
    partner, and a positive and a negative in both parts, so that both means have the same labels.
    Images whose partner is unknown are left out. AP and accuracy also differ between the parts
    because the label is more frequent with its partner; AUC and recall do not depend on that.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
        partner_C: from ``usual_partners``.

    Returns:
        ``PARTNER_METRICS`` with the partner and without, [2, 4, C] in [0, 1]; NaN if not scored.

    Raises:
        MeasureError: no label is scored.
    """
    partner_NC = np.where(partner_C < 0, -1, targets[:, partner_C])
    parts = [np.where(partner_NC == state, targets, np.int8(-1)) for state in (1, 0)]
    scored_C = scored_classes(parts[0]) & scored_classes(parts[1])
    if not scored_C.any():
        raise MeasureError(
            "no label has positives and negatives both with and without its usual partner"
        )
    return np.where(scored_C, [_by_label(logits, part) for part in parts], np.nan)


def _by_label(logits: ScoreMatrix, targets: Targets) -> list[Floats]:
    """``PARTNER_METRICS`` of each label, [C] each."""
    predicted, present, known = logits >= 0, targets == 1, targets >= 0
    right = (predicted == present) & known
    return [
        average_precision(logits, targets),
        np.array([*map(auc, logits.T, targets.T)]),
        (predicted & present).sum(axis=0) / present.sum(axis=0).clip(1),
        right.sum(axis=0) / known.sum(axis=0).clip(1),
    ]


# ------------------------------------------------------------------------------------- calibration
class ReliabilityBins(NamedTuple):
    """Known entries by predicted probability; a bin includes its lower edge, the last one also 1.

    Attributes:
        entries: their number in each bin [..., BINS].
        confidence: their mean probability; 0 in an empty bin.
        frequency: the fraction of them that is positive; 0 in an empty bin.
    """

    entries: NDArray[np.intp]
    confidence: Floats
    frequency: Floats

    def error(self) -> Floats:
        """The expected calibration error: mean |frequency - confidence| over entries, in [0, 1]."""
        gaps = self.entries * np.abs(self.frequency - self.confidence)
        total = self.entries.sum(axis=-1)
        mean = gaps.sum(axis=-1) / np.maximum(total, 1)
        return np.asarray(np.where(total > 0, mean, np.nan))


def reliability_bins(logits: ScoreMatrix, targets: Targets, *, pooled: bool) -> ReliabilityBins:
    """Put the known entries into bins by predicted probability.

    Args:
        logits: [N, C].
        targets: int8 [N, C] in {1, 0, -1}.
        pooled: True for the bins of all classes together [BINS], False for each class [C, BINS].
    """
    shape = (BINS,) if pooled else (logits.shape[1], BINS)
    known = targets >= 0
    chances = probabilities(logits)[known]
    place = np.minimum((chances * BINS).astype(np.intp), BINS - 1)
    if not pooled:
        place += BINS * np.nonzero(known)[1]
    size = int(np.prod(shape))
    count = np.bincount(place, minlength=size)
    mean = np.bincount(place, chances, size) / np.maximum(count, 1)
    share = np.bincount(place, targets[known], size) / np.maximum(count, 1)
    return ReliabilityBins(count.reshape(shape), mean.reshape(shape), share.reshape(shape))


def wilson(share: float, of: int) -> tuple[float, float]:
    """The 95 % interval of a proportion ``share`` of ``of`` >= 1 cases (Wilson, 1927, JASA 22)."""
    square = NORMAL_95**2 / of
    centre = (share + square / 2) / (1 + square)
    variance = share * (1 - share) / of + square / (4 * of)
    half = NORMAL_95 * max(variance, 0.0) ** 0.5 / (1 + square)
    # Rounding may leave a bound just inside the score itself.
    return min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)


def probabilities(logits: NDArray[np.floating[Any]]) -> Floats:
    """The sigmoid of logits, float64, without overflow."""
    return np.asarray(0.5 * np.tanh(0.5 * logits.astype(np.float64)) + 0.5)
