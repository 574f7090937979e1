"""Predictions that are another run's: no two trainings rank all images of all labels alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlbench.packs.archive import Pack
from mlbench.packs.remarks import Remark, finding, warning
from mlbench.types import Predictions, RunRecord, StoreError

ALIKE = 0.999
"""Rank correlation of the images, the mean over labels, from which on two are one: among our
committed runs the most that two trainings of other seeds have is 0.943, and 0.980 two heads of one
seed; noise of 4 % of the logits' spread leaves 0.999."""
NEAR = 0.1
"""Points of mAP that copies are at most apart: predictions of all others need not be read."""


@dataclass(frozen=True)
class Seen:
    """A run whose predictions a pack is held against; they are read when they are asked for."""

    where: str
    record: RunRecord
    predictions: Callable[[RunRecord], Predictions]


def copies(pack: Pack, others: Iterable[Seen]) -> Iterator[Remark]:
    """Whether other runs ranked the images like this one.

    Those of other seeds never do. Those of one seed may: two losses can be one up to a factor.
    """
    record = pack.record
    if pack.predicted is None or record.scores is None:
        return
    mine = pack.predicted.predictions
    for other in others:
        theirs = other.record
        if theirs.run_id == record.run_id or not _near(record, theirs):
            continue
        try:
            alike = correlation(mine, other.predictions(theirs))
        except StoreError as error:
            yield warning(f"run {theirs.run_id} could not be held against this one: {error}")
            continue
        if alike < ALIKE:
            continue
        name = f"run {theirs.run_id} ({theirs.spec.method}, seed {theirs.spec.seed})"
        text = f"{name} of {other.where} ranks the images of every label as this one does"
        if theirs.spec.seed == record.spec.seed:
            yield warning(f"{text}: are they one model?")
        else:
            least = f"a rank correlation below {ALIKE}, as trainings of other seeds have"
            yield finding(text, least, f"{alike:.6f} with seed {record.spec.seed}")


def _near(one: RunRecord, other: RunRecord) -> bool:
    if one.scores is None or other.scores is None or one.test_images != other.test_images:
        return False
    same_labels = sorted(one.label_names) == sorted(other.label_names)
    return same_labels and abs(one.scores.mAP - other.scores.mAP) <= NEAR


def correlation(one: Predictions, other: Predictions) -> float:
    """Spearman's rank correlation of the images, the mean over labels; 0 of other images."""
    if sorted(one.keys) != sorted(other.keys) or one.logits.shape != other.logits.shape:
        return 0.0
    first, second = _ranks(one), _ranks(other)
    spread = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    told = spread > 0
    products = (first * second).sum(axis=0)[told]
    return float((products / spread[told]).mean()) if told.any() else 0.0


def _ranks(seen: Predictions) -> NDArray[np.float64]:
    """[N, C] of the images in the order of their keys, centred; equal logits share one."""
    from scipy.stats import rankdata

    order = sorted(range(len(seen.keys)), key=seen.keys.__getitem__)
    ranks: NDArray[np.float64] = rankdata(seen.logits[order], axis=0)
    ranks -= ranks.mean(axis=0)
    return ranks
