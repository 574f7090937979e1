"""One split of a file of predictions: scores and targets, checked, and what is odd about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.measurement import Labelled
from mlbench.text import count
from mlbench.types import DataError

CERTAIN = 1000.0
"""The logit of probability 1, beyond that of every other probability that a float can hold."""

MEANINGS = {1: "1 (present)", 0: "0 (absent)", -1: "-1 (unknown, counts nowhere)"}


class Split(NamedTuple):
    """Scores and targets [N, C] as they stand in a file.

    Attributes:
        kind: ``logit`` or ``probability``.
        called: ``logit``, ``probability`` and ``target`` -> the name of such an array in the file.
        place: (``target`` or the kind, image, label) -> where in which file that entry stands.
    """

    file: Path
    kind: str
    scores: NDArray[Any]
    targets: NDArray[Any]
    called: Mapping[str, str]
    place: Callable[[str, int, int], str]


def labelled(split: Split) -> Labelled:
    """Logits and targets; the first entry that is wrong is named.

    Raises:
        DataError: there is nothing to score, an entry is no score or no target, or the targets are
            such that all scores would be perfect.
    """
    file, kind, scores, targets, _, place = split
    if not targets.size:
        lacking = "labels" if len(targets) else "images"
        raise DataError(f"{file}: holds no {lacking}, so that there is nothing to score")
    where = _first(~np.isfinite(scores))
    if where:
        raise DataError(
            f"{place(kind, *where)}: {scores[where]} is not finite (as are "
            f"{np.count_nonzero(~np.isfinite(scores))} of all {scores.size}); give a number that "
            "is, or leave the image out"
        )
    where = _first(~np.isin(targets, (-1, 0, 1)))
    if where:
        raise DataError(
            f"{place('target', *where)}: {targets[where]} is no target; 1 is present, 0 absent and "
            "-1 unknown"
        )
    where = _first((scores < 0) | (scores > 1))
    if kind == "probability" and where:
        raise DataError(
            f"{place(kind, *where)}: {scores[where]} is not within 0 and 1; name the scores logits "
            "if that is what they are"
        )
    _check_absent(split)
    logits = _logits(scores) if kind == "probability" else scores
    return Labelled(logits, targets.astype(np.int8))


def doubts(split: Split) -> Iterator[str]:
    """What may be meant otherwise than it is taken, with the remedy; of a split that is checked."""
    file, kind, scores, targets, called, _ = split
    if kind == "logit" and scores.min() >= 0 and scores.max() <= 1:
        yield (
            f"{file}: every number of {called['logit']} lies within 0 and 1, as probabilities do, "
            "and is taken as a logit, so that every label counts as predicted at probability 0.5; "
            f"if they are probabilities, name them {called['probability']}"
        )
    unknown, absent = (int(np.count_nonzero(targets == value)) for value in (-1, 0))
    if unknown > absent:
        yield (
            f"{file}: {called['target']} holds {MEANINGS[-1]} {count(unknown, 'time')} and "
            f"{MEANINGS[0]} {count(absent, 'time')}; if -1 means absent here and "
            "0 difficult, as in VOC's own lists, exchange the two"
        )


def _check_absent(split: Split) -> None:
    """Refuse targets of which none is 0: without a negative every ranking is perfect."""
    if (split.targets == 0).any() or not (split.targets == 1).any():
        return
    unknown = (split.targets == -1).any()
    held = " and ".join([MEANINGS[1], *([MEANINGS[-1]] if unknown else [])])
    remedy = "write 0 instead of -1 if that means absent here" if unknown else "give the absent too"
    raise DataError(
        f"{split.file}: {split.called['target']} holds {held}, and nowhere {MEANINGS[0]}, so that "
        f"any scores whatever would have 100 % mAP; {remedy}"
    )


def _first(wrong: NDArray[np.bool_]) -> tuple[int, int] | None:
    """(image, label) of the first entry that is true."""
    found = np.argwhere(wrong)
    return (int(found[0, 0]), int(found[0, 1])) if len(found) else None


def _logits(chances: NDArray[Any]) -> NDArray[np.float64]:
    """Logits [N, C] of probabilities; the ranking stays as it was."""
    p = chances.astype(np.float64)
    inside = np.clip(p, np.nextafter(0, 1), np.nextafter(1, 0))
    logits = np.log(inside) - np.log1p(-inside)
    return np.where(p == 0, -CERTAIN, np.where(p == 1, CERTAIN, logits))
