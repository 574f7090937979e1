"""Label statistics of a data set, and their tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.table import Table

from mlbench.data.labels import Counts, cooccurrence
from mlbench.metrics.average_precision import scored_classes
from mlbench.text import count, shorten
from mlbench.types import Index, Splits, Value
from mlbench_tools.fetch.terminal import table
from mlbench_tools.scoring.measures import GROUPS, by_training_positives

Frequency = Literal["head", "middle", "tail"]

PAIRS = 10
"""The number of strongest label pairs that are listed."""
LISTED = 10
"""The number of images without labels that are named; ``--json`` names all."""


# --------------------------------------------------------------------------------------- counting
class LabelStatistics(Value):
    """Images of each split in which the label is present, and in which it is unknown."""

    name: str
    frequency: Frequency
    train: int
    test: int
    train_unknown: int
    test_unknown: int


class SplitStatistics(Value):
    """Counts of one split.

    Attributes:
        positives, unknown: number of such entries over all images and labels.
        left_out: labels without an AP here, as no positive or no negative is known.
        unlabelled: keys of the images without a positive.
        per_image: number of positives -> number of images with that many.
    """

    images: int
    positives: int
    unknown: int
    left_out: tuple[str, ...]
    unlabelled: tuple[str, ...]
    labels_per_image: float
    per_image: dict[int, int]


class Pair(Value):
    """Two labels that occur together.

    Attributes:
        images: training images with both.
        jaccard: ``images`` over the number of training images with either.
    """

    first: str
    second: str
    images: int
    jaccard: float


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts of a data set.

    Attributes:
        cooccurrence: float32 [C, C], of training images, in the order of ``labels``.
    """

    dataset: str
    identity: str
    splits: dict[str, SplitStatistics]
    labels: tuple[LabelStatistics, ...]
    pairs: tuple[Pair, ...]
    cooccurrence: Counts


def label_statistics(dataset: str, splits: Splits) -> Statistics:
    """Count the labels of both splits; the pairs are those of the training split."""
    train_NC, test_NC = splits.train.targets, splits.test.targets
    positives_C = (train_NC == 1).sum(axis=0)
    columns = {
        "name": splits.names,
        "frequency": [GROUPS[i] for i in by_training_positives(positives_C)],
        "train": positives_C.tolist(),
        "test": (test_NC == 1).sum(axis=0).tolist(),
        "train_unknown": (train_NC < 0).sum(axis=0).tolist(),
        "test_unknown": (test_NC < 0).sum(axis=0).tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    counts_CC = cooccurrence(train_NC)
    return Statistics(
        dataset=dataset,
        identity=splits.identity,
        splits={
            "train": _split(splits.train, splits.names),
            "test": _split(splits.test, splits.names),
        },
        labels=tuple(LabelStatistics(**dict(zip(columns, row, strict=True))) for row in rows),
        pairs=_pairs(counts_CC, splits.names),
        cooccurrence=counts_CC,
    )


def _split(index: Index, names: tuple[str, ...]) -> SplitStatistics:
    per_image_N = (index.targets == 1).sum(axis=1)
    numbers, images = np.unique(per_image_N, return_counts=True)
    return SplitStatistics(
        images=len(index),
        positives=int(per_image_N.sum()),
        unknown=int((index.targets < 0).sum()),
        left_out=tuple(names[c] for c in np.flatnonzero(~scored_classes(index.targets)).tolist()),
        unlabelled=tuple(index.keys[i] for i in np.flatnonzero(per_image_N == 0).tolist()),
        labels_per_image=float(per_image_N.mean()) if len(index) else 0.0,
        per_image=dict(zip(numbers.tolist(), images.tolist(), strict=True)),
    )


def _pairs(counts_CC: Counts, names: tuple[str, ...]) -> tuple[Pair, ...]:
    """The pairs with the largest Jaccard index, ties in the order of the labels."""
    positives_C = counts_CC.diagonal().astype(np.int64)
    rows, columns = np.nonzero(counts_CC)
    rows, columns = rows[rows < columns], columns[rows < columns]
    both = counts_CC[rows, columns].astype(np.int64)
    jaccard = both / (positives_C[rows] + positives_C[columns] - both)
    order = np.argsort(-jaccard, kind="stable")[:PAIRS]
    found = (values[order].tolist() for values in (rows, columns, both, jaccard))
    return tuple(
        Pair(first=names[row], second=names[column], images=images, jaccard=share)
        for row, column, images, share in zip(*found, strict=True)
    )


# ----------------------------------------------------------------------------------------- tables
def tables(found: Statistics) -> Iterator[Table | str]:
    """What ``mlbench data stats`` prints."""
    splits, labels = found.splits, sorted(found.labels, key=lambda label: -label.train)
    yield f"{found.dataset}: {found.identity}"
    columns = ("", "images", "without labels", "labels per image", "positives", "unknown labels")
    rows: list[Sequence[object]] = [
        (name, s.images, len(s.unlabelled), f"{s.labels_per_image:.2f}", s.positives, s.unknown)
        for name, s in splits.items()
    ]
    yield table(columns, rows, text=("",))
    numbers = sorted({number for split in splits.values() for number in split.per_image})
    rows = [(str(n), *(split.per_image.get(n, 0) for split in splits.values())) for n in numbers]
    yield table(("labels in an image", *splits), rows, text=())
    for name, split in splits.items():
        if split.unlabelled:
            yield f"without labels in {name}: {shorten(split.unlabelled, LISTED)}"
        if split.left_out:
            yield (
                f"{count(len(split.left_out), 'label')} without an AP in {name}, as no image is "
                f"known to have it or none to lack it: {shorten(split.left_out, LISTED)}"
            )
    columns = ("label", "train", "test", "unknown in train", "in test", "frequency")
    rows = [(x.name, x.train, x.test, x.train_unknown, x.test_unknown, x.frequency) for x in labels]
    yield table(columns, rows, text=("label", "frequency"))
    for group in GROUPS:
        names = [label.name for label in found.labels if label.frequency == group]
        yield f"{group}: {count(len(names), 'label')}{': ' + ', '.join(names) if names else ''}"
    yield "\nStrongest pairs (images with both, of those with either):"
    for pair in found.pairs:
        yield f"  {pair.first} + {pair.second}: {pair.images:,} ({pair.jaccard:.1%})"
    yield "\n--json prints the co-occurrence of all pairs, --plot FILE.png draws it."
