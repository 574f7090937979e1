"""Which predictions are confidently wrong, and which labels are probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from mlbench.types import Predictions

MINIMUM = 3
"""Least number of images with a label, and without it, for an estimate of its errors."""


@dataclass(frozen=True)
class Suspect:
    """An image and a label that do not go together.

    Attributes:
        image: position in the split.
        label: column.
        kind: what the data say: the label is ``present`` or ``absent``.
        score: the label's score, in [0, 1].
        label_error: True if the label, rather than the prediction, is probably wrong.
    """

    image: int
    label: int
    kind: Literal["present", "absent"]
    score: float
    label_error: bool

    @property
    def wrongness(self) -> float:
        """1 - the confidence in the given label; suspects are sorted by it."""
        return 1 - self.score if self.kind == "present" else self.score


def suspects(
    predictions: Predictions, calibration: NDArray[np.float64] | None = None, most: int = 12
) -> list[list[Suspect]]:
    """For each label, the images whose given label the model believes least, worst first.

    A label is probably wrong if the model's confidence in the other state reaches its mean over
    the images that are in that state: C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident
    Learning", JAIR 2021, for one label at a time. The mean makes up for scores that are shifted.
    """
    slope_C, offset_C = np.ones(1), np.zeros(1)
    if calibration is not None:
        slope_C, offset_C = calibration.T
    scores_NC = expit(slope_C * predictions.logits + offset_C)
    found = []
    for c in range(scores_NC.shape[1]):
        mine: list[Suspect] = []
        target_N, score_N = predictions.targets[:, c], scores_NC[:, c]
        present, absent = np.flatnonzero(target_N == 1), np.flatnonzero(target_N == 0)
        if min(len(present), len(absent)) >= MINIMUM:
            as_present, as_absent = score_N[present].mean(), score_N[absent].mean()
            for i in present[np.argsort(score_N[present], kind="stable")][:most].tolist():
                score = float(score_N[i])
                mine.append(Suspect(i, c, "present", score, bool(score <= as_absent)))
            for i in absent[np.argsort(-score_N[absent], kind="stable")][:most].tolist():
                score = float(score_N[i])
                mine.append(Suspect(i, c, "absent", score, bool(score >= as_present)))
        found.append(sorted(mine, key=lambda one: -one.wrongness))
    return found


def confusions(
    predictions: Predictions, names: tuple[str, ...], most: int = 3
) -> list[list[tuple[str, float]]]:
    """For each label, the present labels that its false positives have more often than others do.

    The highest-scored images without the label, as many as have it, are its false positives.

    Returns:
        For each label, (other label, share of the false positives that have it), of those that
        have it at least twice as often as all images do.
    """
    true_NC = predictions.targets == 1
    usual_C = true_NC.mean(axis=0)
    found = []
    for c in range(len(names)):
        absent = np.flatnonzero(predictions.targets[:, c] == 0)
        number = max(5, int(true_NC[:, c].sum()))
        wrong = absent[np.argsort(-predictions.logits[absent, c], kind="stable")][:number]
        share_C = true_NC[wrong].sum(axis=0) / max(len(wrong), 1)
        often = np.flatnonzero((share_C > 0) & (share_C >= 2 * usual_C))
        order = often[np.argsort(-share_C[often], kind="stable")][:most].tolist()
        found.append([(names[o], float(share_C[o])) for o in order])
    return found


def curve(scores_N: NDArray[np.floating], targets_N: NDArray[np.int8], points: int = 60) -> str:
    """The precision-recall curve as points of an SVG of 100 x 100; empty without both states."""
    known = targets_N >= 0
    hits = np.cumsum(targets_N[known][np.argsort(-scores_N[known], kind="stable")] == 1)
    if not len(hits) or hits[-1] in (0, len(hits)):
        return ""
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    shown = np.unique(np.linspace(0, len(hits) - 1, points).astype(int))
    return " ".join(f"{100 * recall[i]:.1f},{100 - 100 * precision[i]:.1f}" for i in shown)
