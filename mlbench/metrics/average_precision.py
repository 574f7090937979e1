"""Average precision of each class: exact under ties, independent of the order of the images.

Targets are int8 [N, C] with 1 present, 0 absent and -1 unknown. An unknown entry is left out of the
ranking of its class, as VOC leaves out difficult objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.text import count, shorten
from mlbench.types import MeasureError, Targets

ScoreMatrix = NDArray[np.floating[Any]]
"""Score matrix [N, C]: the higher, the more likely; only the ranking within a class counts."""

Floats = NDArray[np.float64]

Average = Callable[[Floats, NDArray[np.intp]], float]
"""From the positives of a class, lowest score first, to its AP: the precision among the images that
score at least as high [P], and how many of those are positive [P]."""


def average_precision(scores: ScoreMatrix, targets: Targets) -> Floats:
    """Area under the precision-recall curve of each class, without interpolation.

    AP_c is the mean over the positives of class c of the precision among all images that score at
    least as high. Images with equal scores enter together, so that no order among them is invented:
    the values equal those of ``sklearn.metrics.average_precision_score``.

    Args:
        scores: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.

    Returns:
        float64 [C] in [0, 1]; NaN for a class that ``scored_classes`` leaves out. NaN never leaves
        this package: ``mlbench.metrics.bootstrap.score`` reports it as None and counts the classes.

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class can be scored.
    """
    return _by_class(scores, targets, _mean)


def interpolated_average_precision(scores: ScoreMatrix, targets: Targets) -> Floats:
    """``average_precision`` under the precision envelope of PASCAL VOC 2010 and later.

    The precision at a recall r becomes the highest precision at any recall >= r, at every point
    (not at eleven). SSGRL and Query2Label report it; it is never below ``average_precision``.
    """
    return _by_class(scores, targets, _under_the_envelope)


def eleven_point_average_precision(scores: ScoreMatrix, targets: Targets) -> Floats:
    """The AP of PASCAL VOC 2007: the mean of the envelope at the recalls 0, 0.1, ..., 1.

    Everingham et al., IJCV 2010, section 4.2. A recall is compared with k/10 in whole numbers, so
    that 3 of 10 positives reach 0.3 on every machine.
    """
    return _by_class(scores, targets, _at_eleven_recalls)


def scored_classes(targets: Targets) -> NDArray[np.bool_]:
    """Mark the classes that have an AP [C]: those with a known positive and a known negative.

    Without a negative every ranking has AP 1, whatever the scores; without a positive none has one.
    """
    scored_C: NDArray[np.bool_] = (targets == 1).any(axis=0) & (targets == 0).any(axis=0)
    return scored_C


def unscorable(targets: Targets, names: Sequence[str] = ()) -> str | None:
    """The reason why no class can be scored; None if one can.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
        names: of the classes; by default their numbers.
    """
    if scored_classes(targets).any():
        return None
    images, labels = targets.shape
    return (
        f"nothing can be scored: none of {count(labels, 'label')} is known to be present in one "
        f"and absent in another of the {count(images, 'image')}: "
        f"{count_states(targets, range(labels), names)}. {write_zeros(targets)}"
    )


def write_zeros(targets: Targets) -> str:
    """What to do about labels that are present or unknown everywhere."""
    if (targets < 0).any():
        return "If -1 (unknown) or a blank stands for an absent label, write 0 (absent) instead"
    return "Add images that differ in these labels"


def count_states(targets: Targets, labels: Iterable[int], names: Sequence[str] = ()) -> str:
    """``cat (7 present, 0 absent, 3 unknown), ...`` for the first of these labels."""
    return shorten(
        [
            "{} ({:,} present, {:,} absent, {:,} unknown)".format(
                names[c] if names else f"label {c}",
                *(np.count_nonzero(targets[:, c] == state) for state in (1, 0, -1)),
            )
            for c in labels
        ]
    )


def check(scores: ScoreMatrix, targets: Targets, names: Sequence[str] = ()) -> None:
    """Refuse arrays that cannot be scored; ``names`` are those of the classes, for messages.

    Raises:
        MeasureError: saying what is wrong, how often and where.
    """
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise MeasureError(
            f"scores {scores.shape} and targets {targets.shape} must both be [images, classes]"
        )
    finite = np.isfinite(scores)
    if not finite.all():
        image, label = (int(i) for i in np.argwhere(~finite)[0])
        raise MeasureError(
            f"{finite.size - np.count_nonzero(finite)} of {finite.size} scores are not finite, the "
            f"first is {scores[image, label]} at image {image}, class {label}; a model that has "
            "diverged or overflowed has no metrics: try fp32 or a lower learning rate"
        )
    invalid = (targets < -1) | (targets > 1)
    if invalid.any():
        image, label = (int(i) for i in np.argwhere(invalid)[0])
        raise MeasureError(
            f"targets must be 1 present, 0 absent or -1 unknown, but image {image}, class {label} "
            f"has {targets[image, label]}"
        )
    if reason := unscorable(targets, names):
        raise MeasureError(reason)


def _mean(precision_P: Floats, _: NDArray[np.intp]) -> float:
    return float(precision_P.mean())


def _under_the_envelope(precision_P: Floats, _: NDArray[np.intp]) -> float:
    return float(np.maximum.accumulate(precision_P).mean())


def _at_eleven_recalls(precision_P: Floats, hits_P: NDArray[np.intp]) -> float:
    envelope_P = np.maximum.accumulate(precision_P)
    needed = -(-np.arange(11) * len(hits_P) // 10)
    reaching = np.searchsorted(-hits_P, -needed, side="right")  # hits fall along the array
    return float(envelope_P[reaching - 1].mean())


def _by_class(scores: ScoreMatrix, targets: Targets, average: Average) -> Floats:
    check(scores, targets)
    columns = zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(targets.T), strict=True)
    return np.array([_one_class(s, t, average) for s, t in columns])


def _one_class(scores: ScoreMatrix, targets: Targets, average: Average) -> float:
    positives = np.sort(scores[targets == 1])
    known = np.sort(scores if targets.min() >= 0 else scores[targets >= 0])
    if len(positives) in (0, len(known)):
        return float("nan")
    # Both arrays ascend: a score that is not below a positive's ranks at or above it.
    hits = len(positives) - np.searchsorted(positives, positives)
    ranked = len(known) - np.searchsorted(known, positives)
    return average(hits / ranked, hits)
