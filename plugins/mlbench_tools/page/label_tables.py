"""How well each label of a run is found, and how much so few test positives can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from mlbench.store import open_arrays
from mlbench.types import RunRecord

NORMAL_95 = 1.959964
"""Half the width of a 95 % interval in standard deviations."""


class Label(NamedTuple):
    """A label, its average precision in percent, and how many images have it.

    Attributes:
        low, high: percent, the 95 % interval over test images; None where ``tested`` is.
        tested: positives of the test split; None without predictions.
        trained: positives that were trained on; None in records that do not tell.
    """

    name: str
    ap: float
    low: float | None = None
    high: float | None = None
    tested: int | None = None
    trained: int | None = None


class PositiveCounts:
    """Counts the positives of test splits; runs that saw the same targets are counted once."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, file: Path) -> tuple[int, ...] | None:
        """How many test images have each label [C]; None where there are no predictions.

        Args:
            file: predictions as ``Store`` writes them.

        Raises:
            StoreError: the file is damaged.
        """
        if not file.exists():
            return None
        with open_arrays(file) as arrays:
            member = arrays.zip.getinfo("targets.npy")
            same = (member.CRC, member.file_size)
            if same not in self._counts:
                self._counts[same] = tuple((arrays["targets"] == 1).sum(axis=0).tolist())
            return self._counts[same]


def labels(record: RunRecord, tested: Sequence[int] | None) -> list[Label]:
    """The labels of a run that have a score, weakest first.

    Args:
        record: of the run.
        tested: test positives of each label [C], where they are known.
    """
    rows = zip_longest(
        record.label_names, record.average_precision, tested or (), record.train_positives or ()
    )
    found = []
    for name, ap, positives, trained in rows:
        if ap is not None and math.isfinite(ap):
            low, high = interval(ap, positives) if positives else (None, None)
            found.append(Label(name, ap, low, high, positives, trained))
    return sorted(found, key=lambda label: label.ap)


def interval(ap: float, positives: int) -> tuple[float, float]:
    """The 95 % interval of a label's average precision, as if it were a fraction of its positives.

    Average precision is a mean over P positives of a number in [0, 1], and P (1 - P) / n serves for
    its variance (Boyd, Eng and Page, 2013, *Area under the precision-recall curve*); Wilson's form
    (1927, JASA 22) stays within bounds and does not shrink to nothing at 100 %. In simulations with
    3 to 100 positives among 900 images it held the truth in 87 to 100 % of cases; the interval by
    influences, which serves mAP well, in 50 to 100 %.

    Args:
        ap: percent.
        positives: at least 1.

    Returns:
        (low, high) in percent.
    """
    share, square = ap / 100, NORMAL_95**2 / positives
    centre = (share + square / 2) / (1 + square)
    variance = share * (1 - share) / positives + square / (4 * positives)
    half = NORMAL_95 * math.sqrt(max(variance, 0.0)) / (1 + square)
    # Rounding may leave a bound a hair inside its own score.
    return 100 * min(max(centre - half, 0.0), share), 100 * max(min(centre + half, 1.0), share)
