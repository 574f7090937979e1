"""Label graphs to hold a method's own against: one without links, and one with links dealt out.

What a head makes of the counts (a threshold, a normalisation) is its own affair; these change the
counts themselves, for every method alike. The positives of each label, on the diagonal, stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mlbench.types import Graph

Counts = NDArray[np.float32]


def label_graph(graph: Graph, counts_CC: Counts, seed: int) -> Counts:
    """The counts float32 [C, C] that heads make their label graph of.

    Args:
        graph: ``cooccurrence`` leaves the counts as they are, ``identity`` links no label to
            another, ``random`` links as many pairs as strongly, but not the same pairs.
        counts_CC: images with both labels, on the diagonal the positives; symmetric.
        seed: of ``random``; the others do not depend on it.
    """
    return _MADE[graph](counts_CC, seed)


def _cooccurrence(counts_CC: Counts, seed: int) -> Counts:
    return counts_CC


def _identity(counts_CC: Counts, seed: int) -> Counts:
    return np.diag(counts_CC.diagonal())


def _random(counts_CC: Counts, seed: int) -> Counts:
    """Deal the strengths of all links out anew among the pairs of labels that have positives.

    The strength of a link is n_ij / min(n_i, n_j), so that what is dealt out are counts that could
    have been: symmetric, with as many links as before, and never above a label's positives.
    """
    positives_C = counts_CC.diagonal()
    rows, columns = np.nonzero(np.triu(counts_CC, k=1))
    strengths = counts_CC[rows, columns] / np.minimum(positives_C[rows], positives_C[columns])
    seen = np.flatnonzero(positives_C)
    first, second = _pairs(len(seen), len(strengths), seed)
    rows, columns = seen[first], seen[second]
    largest = np.minimum(positives_C[rows], positives_C[columns])
    dealt_CC = _identity(counts_CC, seed)
    dealt_CC[rows, columns] = np.maximum(np.rint(strengths * largest), 1)
    dealt_CC[columns, rows] = dealt_CC[rows, columns]
    return dealt_CC


def _pairs(count: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """This many different pairs i < j of ``count`` things, in random order."""
    i = np.arange(count, dtype=np.int64)
    starts = i * (count - 1) - i * (i - 1) // 2  # the number of the pair (i, i + 1)
    total = count * (count - 1) // 2
    drawn = np.random.default_rng(seed).choice(total, size, replace=False) if size else i[:0]
    first = np.searchsorted(starts[:-1], drawn, side="right") - 1
    return first, drawn - starts[first] + first + 1


_MADE: Mapping[Graph, Callable[[Counts, int], Counts]] = {
    "cooccurrence": _cooccurrence,
    "identity": _identity,
    "random": _random,
}
