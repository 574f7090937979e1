"""Precision, recall and F1 of predicted labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import Floats, ScoreMatrix, check, count_true, scored_classes
from mlbench.types import Targets

NAMES = ("CP", "CR", "CF1", "OP", "OR", "OF1")

HALF = 0.0
"""The logit of probability 0.5."""


def precision_recall_f1(
    scores: ScoreMatrix, targets: Targets, top_k: int | None = None
) -> dict[str, float]:
    """CP CR CF1 OP OR OF1 as ML-GCN (Chen et al., CVPR 2019) and its successors define them.

    With counts per class of correct predictions Nc, predictions Np and positives Ng::

        CP = mean_c Nc/Np    CR = mean_c Nc/Ng    CF1 = 2 CP CR / (CP + CR)
        OP = sum Nc/sum Np   OR = sum Nc/sum Ng   OF1 = 2 OP OR / (OP + OR)

    CF1 is the F1 of the two means, not the mean of the classes' F1. A class that is never predicted
    has precision 0. Classes without an AP (``scored_classes``) are left out of CP and CR, as they
    are of mAP; their predictions still count in OP and OR. 0/0 is 0.

    Args:
        scores: [N, C] logits, finite.
        targets: int8 [N, C] in {1, 0, -1}; an unknown entry counts nowhere.
        top_k: predict at most the ``top_k`` highest known scores of an image, among those of
            probability 0.5 and above; of equal scores the lower class index comes first.

    Returns:
        The six names with values in [0, 1].

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class can be scored.
    """
    check(scores, targets)
    found = rates(predict(scores, targets, top_k=top_k), targets)
    return {name: found[name] for name in NAMES}


def predict(
    scores: ScoreMatrix,
    targets: Targets,
    threshold: float | Floats = HALF,
    top_k: int | None = None,
) -> NDArray[np.bool_]:
    """Mark the known entries that are predicted; see ``precision_recall_f1``.

    Args:
        scores: [N, C] logits.
        targets: int8 [N, C]; an unknown entry is never predicted.
        threshold: one for all classes, or one per class [C]; ``-inf`` accepts every score. It is
            rounded to the precision of the scores, so that a float32 score of 0.1 reaches 0.1.
        top_k: at most this many per image; None for any number.

    Returns:
        bool [N, C].
    """
    known = targets >= 0
    rounded = np.asarray(threshold).astype(np.result_type(scores.dtype, np.float16))
    predicted: NDArray[np.bool_] = (scores >= rounded) & known
    if top_k is not None:
        predicted &= _highest(scores if known.all() else np.where(known, scores, -np.inf), top_k)
    return predicted


def rates(
    predicted: NDArray[np.bool_], targets: Targets, averaged: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Compute the values of ``precision_recall_f1``, and ``CF1_mean``: the mean of classes' F1.

    Given all matrices transposed, the per-class names are means over images instead.

    Args:
        predicted: [N, C]; no unknown entry is predicted.
        targets: int8 [N, C] in {1, 0, -1}, with at least one positive.
        averaged: the classes [C] that means are over; by default ``scored_classes``. A class
            without a positive counts as 0.

    Returns:
        The seven names with values in [0, 1].
    """
    positive = targets == 1
    correct = count_true(predicted & positive)
    guesses = count_true(predicted)
    truths = count_true(positive)
    scored = scored_classes(targets) if averaged is None else averaged
    class_precision = float((correct[scored] / np.maximum(guesses[scored], 1)).mean())
    class_recall = float((correct[scored] / np.maximum(truths[scored], 1)).mean())
    both = np.maximum((guesses + truths)[scored], 1)
    overall_precision = float(correct.sum() / max(guesses.sum(), 1))
    overall_recall = float(correct.sum() / truths.sum())
    return {
        "CP": class_precision,
        "CR": class_recall,
        "CF1": _harmonic(class_precision, class_recall),
        "CF1_mean": float((2 * correct[scored] / both).mean()),
        "OP": overall_precision,
        "OR": overall_recall,
        "OF1": _harmonic(overall_precision, overall_recall),
    }


def _highest(scores: ScoreMatrix, k: int) -> NDArray[np.bool_]:
    """Mark the k highest of each row [N, C]; of equal ones the first."""
    left, rows = scores.copy(), np.arange(len(scores))
    marked = np.zeros(scores.shape, dtype=bool)
    for _ in range(min(k, scores.shape[1])):  # for a few, a fifth of the time of sorting
        best = left.argmax(axis=1)
        marked[rows, best] = True
        left[rows, best] = -np.inf
    return marked


def _harmonic(precision: float, recall: float) -> float:
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0
