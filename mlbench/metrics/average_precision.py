"""Average precision of each class: exact under ties, independent of the order of the images.

Targets are int8 [N, C] with 1 present, 0 absent and -1 unknown. An unknown entry is left out of the
ranking of its class, as VOC leaves out difficult objects. What scores raises ``MeasureError`` if
shapes differ, a score is not finite, or no class can be scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.text import count, shorten
from mlbench.types import MeasureError, Targets

ScoreMatrix = NDArray[np.floating[Any]]
"""Finite scores [N, C]: the higher, the more likely; only the ranking within a class counts."""

Floats = NDArray[np.float64]


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
    found = precisions(scores, targets)
    return np.array([p.mean() if len(p) else np.nan for p, _ in found])


def scored_classes(targets: Targets) -> NDArray[np.bool_]:
    """Mark the classes that have an AP [C]: those with a known positive and a known negative.

    Without a negative every ranking has AP 1, whatever the scores; without a positive none has one.
    """
    scored_C: NDArray[np.bool_] = (targets == 1).any(axis=0) & (targets == 0).any(axis=0)
    return scored_C


def count_true(mask_NC: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of True in each column [C]; sums of bytes in bytes take a third of the time."""
    bytes_NC = mask_NC.view(np.uint8)
    whole = len(mask_NC) // 255 * 255
    blocks = bytes_NC[:whole].reshape(-1, 255, mask_NC.shape[1]).sum(axis=1, dtype=np.uint8)
    counts_C: NDArray[np.int64] = blocks.sum(axis=0, dtype=np.int64)
    counts_C += bytes_NC[whole:].sum(axis=0, dtype=np.int64)
    return counts_C


def unscorable(targets: Targets, names: Sequence[str] = ()) -> str | None:
    """The reason why no class can be scored; None if one can.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
        names: names of the classes; by default their numbers.
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
    check_arrays(scores, targets)
    if reason := unscorable(targets, names):
        raise MeasureError(reason)


def check_arrays(scores: ScoreMatrix, targets: Targets) -> None:
    """Refuse shapes other than [N, C], scores that are not finite, and invalid targets."""
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
    if targets.min(initial=0) < -1 or targets.max(initial=0) > 1:
        image, label = (int(i) for i in np.argwhere(abs(targets.astype(int)) > 1)[0])
        raise MeasureError(
            f"targets must be 1 present, 0 absent or -1 unknown, but image {image}, class {label} "
            f"has {targets[image, label]}"
        )


def precisions(scores: ScoreMatrix, targets: Targets) -> Iterator[tuple[Floats, NDArray[np.intp]]]:
    """The precisions whose mean is the AP, for each class.

    Returns:
        For the positives of a class, lowest score first, the precision among the images that score
        at least as high [P], and how many of those are positive [P]; empty without an AP.

    Raises:
        MeasureError: as ``average_precision``.
    """
    check(scores, targets)
    for scores_N, targets_N in zip(_transposed(scores), _transposed(targets), strict=True):
        positives = np.sort(scores_N.compress(targets_N == 1))
        known = np.sort(scores_N if targets_N.min() >= 0 else scores_N[targets_N >= 0])
        if len(positives) == len(known):
            positives = positives[:0]
        # Both arrays ascend: a score that is not below a positive's score ranks at or above it.
        hits_P = len(positives) - np.searchsorted(positives, positives)
        ranked_P = len(known) - np.searchsorted(known, positives)
        yield hits_P / ranked_P, hits_P


def _transposed(matrix: NDArray[Any]) -> NDArray[Any]:
    """Transpose in blocks that fit into a cache, which takes a third of the time."""
    rows = np.empty(matrix.shape[::-1], matrix.dtype)
    for i in range(0, len(matrix), 512):
        rows[:, i : i + 512] = matrix[i : i + 512].T
    return rows
