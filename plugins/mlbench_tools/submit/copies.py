"""Predictions that are another run's: no two trainings rank all images of all labels alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlbench.types import Predictions, RunRecord, StoreError
from mlbench_tools.submit.archive import Pack
from mlbench_tools.submit.remarks import Remark, finding, warning

ALIKE = 0.999
"""Rank correlation of the images, the mean over labels, from which on two are one: among our
committed runs the most that two trainings of other seeds have is 0.943, and 0.980 two heads of one
seed; noise of 4 % of the logits' spread leaves 0.999."""
SIMILAR = 0.98
"""From here on two of other seeds are for a person to judge; noise of 15 % leaves it."""
SOME = 20
"""Labels that are looked at first."""
UNLIKE = 0.9
"""Below this on some labels, the others are not looked at: to change these so far takes a copy of
80 labels below ``SIMILAR`` by itself."""


@dataclass(frozen=True)
class Seen:
    """A run whose predictions a pack is held against; they are read when they are asked for."""

    where: str
    record: RunRecord
    predictions: Callable[[RunRecord], Predictions]


def copies(pack: Pack, others: Iterable[Seen]) -> Iterator[Remark]:
    """Whether other runs ranked the images like this one.

    Those of other seeds never do, whatever their scores. Those of one seed may: two losses can be
    one up to a factor.
    """
    record = pack.record
    if pack.predicted is None or record.scores is None:
        return
    mine = pack.predicted.predictions
    for other in others:
        theirs = other.record
        if theirs.run_id == record.run_id or not _comparable(record, theirs):
            continue
        try:
            alike = _alike(mine, other.predictions(theirs))
        except StoreError as error:
            yield warning(f"run {theirs.run_id} could not be held against this one: {error}")
            continue
        same_seed = theirs.spec.seed == record.spec.seed
        if alike < (ALIKE if same_seed else SIMILAR):
            continue
        name = f"run {theirs.run_id} ({theirs.spec.method}, seed {theirs.spec.seed})"
        text = f"{name} of {other.where} ranks the images of every label as this one does"
        if same_seed:
            yield warning(f"{text}: are they one model?")
        elif alike < ALIKE:
            yield warning(
                f"{text}, but for little: a rank correlation of {alike:.4f}, where trainings of "
                f"other seeds have less than {SIMILAR}"
            )
        else:
            least = f"a rank correlation below {SIMILAR}, as trainings of other seeds have"
            yield finding(text, least, f"{alike:.6f} with seed {record.spec.seed}")


def _comparable(one: RunRecord, other: RunRecord) -> bool:
    """Whether both scored as many images of the same labels; their scores say nothing of it."""
    if other.scores is None or one.test_images != other.test_images:
        return False
    return sorted(one.label_names) == sorted(other.label_names)


def _alike(one: Predictions, other: Predictions) -> float:
    """``correlation``, of some labels alone where these tell that it is low."""
    on_some = correlation(one, other, SOME)
    return on_some if on_some < UNLIKE else correlation(one, other)


def correlation(one: Predictions, other: Predictions, labels: int | None = None) -> float:
    """Spearman's rank correlation of the images, the mean over labels; 0 of other images.

    Args:
        one: logits of [N, C], its images in any order.
        other: likewise.
        labels: how many, spread evenly over the columns; None takes all.
    """
    if sorted(one.keys) != sorted(other.keys) or one.logits.shape != other.logits.shape:
        return 0.0
    classes = one.logits.shape[1]
    chosen = np.linspace(0, classes - 1, min(labels or classes, classes)).astype(np.intp)
    first, second = _ranks(one, chosen), _ranks(other, chosen)
    spread = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    told = spread > 0
    products = (first * second).sum(axis=0)[told]
    return float((products / spread[told]).mean()) if told.any() else 0.0


def _ranks(seen: Predictions, columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """[N, columns] of the images in the order of their keys, centred; equal logits share one."""
    from scipy.stats import rankdata

    order = sorted(range(len(seen.keys)), key=seen.keys.__getitem__)
    ranks: NDArray[np.float64] = rankdata(seen.logits[np.array(order)[:, None], columns], axis=0)
    ranks -= ranks.mean(axis=0)
    return ranks
