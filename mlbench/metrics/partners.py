"""Does a model see a label, or the company it keeps? Scores with and without its usual partner.

The usual partner of a label is the one that most of its images have too. Images where the partner
is unknown are left out of both parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import ScoreMatrix, average_precision
from mlbench.metrics.ranking import auc
from mlbench.types import Targets

NAMES = ("AP", "AUC", "recall", "accuracy")


class Probes(NamedTuple):
    """What came of each label; NaN, which stays in this package, for one that cannot be probed.

    Attributes:
        partner: its usual partner [C]; -1 where no image has it together with another label.
        present: AP, AUC, recall and accuracy among images with the partner [4, C], in [0, 1].
        absent: the same among images without it.
    """

    partner: NDArray[np.intp]
    present: NDArray[np.float64]
    absent: NDArray[np.float64]


def usual_partners(targets: Targets) -> NDArray[np.intp]:
    """The label that is most often present with each label [C], by these targets.

    Of equally frequent ones the first; -1 where a label is never present with another.

    Args:
        targets: int8 [N, C] in {1, 0, -1}.
    """
    # Exact: counts of images stay far below 2^53, and products of floats use the BLAS.
    present_NC = (targets == 1).astype(np.float64)
    together_CC = present_NC.T @ present_NC
    np.fill_diagonal(together_CC, 0)
    return np.where(together_CC.max(axis=1) > 0, together_CC.argmax(axis=1), -1)


def probe(logits: ScoreMatrix, targets: Targets) -> Probes:
    """Score each label apart on the images with and without its usual partner.

    A label is probed if it has a partner and a positive and a negative in both parts, so that the
    means of both are over the same labels. Recall and accuracy are at probability 0.5. Between the
    two parts AP and accuracy also differ because the label is more frequent beside its partner;
    AUC and recall do not depend on that.

    Args:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}.
    """
    partner_C = usual_partners(targets)
    present, absent = (np.full((len(NAMES), len(partner_C)), np.nan) for _ in range(2))
    for label, partner in enumerate(partner_C):
        if partner < 0:
            continue
        parts = [(targets[:, partner] == state) & (targets[:, label] >= 0) for state in (1, 0)]
        with_it, without = ((logits[part, label], targets[part, label]) for part in parts)
        if all({0, 1} <= set(np.unique(found)) for _, found in (with_it, without)):
            present[:, label], absent[:, label] = _scores(*with_it), _scores(*without)
    return Probes(partner_C, present, absent)


def _scores(
    logits: NDArray[np.floating], targets: NDArray[np.int8]
) -> tuple[float, float, float, float]:
    """AP, AUC, recall and accuracy of one label over known entries of both kinds."""
    predicted = logits >= 0
    return (
        float(average_precision(logits[:, None], targets[:, None])[0]),
        auc(logits, targets),
        float(predicted[targets == 1].mean()),
        float((predicted == (targets == 1)).mean()),
    )
