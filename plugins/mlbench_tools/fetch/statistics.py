"""What the labels of a data set look like, in numbers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mlbench.data.labels import cooccurrence
from mlbench.types import Index, Splits, Value

Frequency = Literal["head", "middle", "tail"]

HEAD, TAIL = 100, 20
"""More than 100 positives in training make a label head, fewer than 20 tail: the convention of
VOC-LT and COCO-LT (Wu et al., Distribution-Balanced Loss, ECCV 2020)."""
PAIRS = 10
"""How many of the strongest label pairs are told."""


class LabelStatistics(Value):
    """Images a split with the label present, and with it unknown."""

    name: str
    frequency: Frequency
    train: int
    test: int
    train_unknown: int
    test_unknown: int


class SplitStatistics(Value):
    """Of a split.

    Attributes:
        positives: over all labels; ``unknown`` likewise.
        without_labels: images without a positive; ``unlabelled`` are their keys.
        per_image: positives an image -> how many images.
    """

    images: int
    positives: int
    unknown: int
    without_labels: int
    unlabelled: tuple[str, ...]
    labels_per_image: float
    per_image: dict[int, int]


class Pair(Value):
    """Two labels that go together.

    Attributes:
        images: training images with both.
        jaccard: of those with either, the part with both.
    """

    first: str
    second: str
    images: int
    jaccard: float


class Statistics(Value):
    """All of it; ``cooccurrence`` counts training images with both labels, rows as ``labels``."""

    dataset: str
    identity: str
    splits: dict[str, SplitStatistics]
    labels: tuple[LabelStatistics, ...]
    pairs: tuple[Pair, ...]
    cooccurrence: tuple[tuple[int, ...], ...]


def count(dataset: str, splits: Splits) -> Statistics:
    """Count the labels of both splits; the pairs are the training split's.

    Args:
        dataset: name of the plugin.
        splits: the data set, opened.
    """
    train_NC, test_NC = splits.train.targets, splits.test.targets
    counts_CC = cooccurrence(train_NC).astype(np.int64)
    columns = zip(
        splits.names,
        *((targets_NC == 1).sum(axis=0).tolist() for targets_NC in (train_NC, test_NC)),
        *((targets_NC < 0).sum(axis=0).tolist() for targets_NC in (train_NC, test_NC)),
        strict=True,
    )
    return Statistics(
        dataset=dataset,
        identity=splits.identity,
        splits={"train": _split(splits.train), "test": _split(splits.test)},
        labels=tuple(
            LabelStatistics(
                name=name,
                frequency=_frequency(train),
                train=train,
                test=test,
                train_unknown=train_unknown,
                test_unknown=test_unknown,
            )
            for name, train, test, train_unknown, test_unknown in columns
        ),
        pairs=_pairs(counts_CC, splits.names),
        cooccurrence=tuple(map(tuple, counts_CC.tolist())),
    )


def _frequency(positives: int) -> Frequency:
    if positives > HEAD:
        return "head"
    return "tail" if positives < TAIL else "middle"


def _split(index: Index) -> SplitStatistics:
    per_image_N = (index.targets == 1).sum(axis=1)
    numbers, images = np.unique(per_image_N, return_counts=True)
    return SplitStatistics(
        images=len(index),
        positives=int(per_image_N.sum()),
        unknown=int((index.targets < 0).sum()),
        without_labels=int((per_image_N == 0).sum()),
        unlabelled=tuple(index.keys[i] for i in np.flatnonzero(per_image_N == 0).tolist()),
        labels_per_image=float(per_image_N.mean()) if len(index) else 0.0,
        per_image=dict(zip(numbers.tolist(), images.tolist(), strict=True)),
    )


def _pairs(counts_CC: np.ndarray, names: tuple[str, ...]) -> tuple[Pair, ...]:
    """The pairs with the largest Jaccard index, ties by the order of the labels."""
    positives_C = counts_CC.diagonal()
    rows, columns = np.triu_indices(len(names), k=1)
    both = counts_CC[rows, columns]
    either = positives_C[rows] + positives_C[columns] - both
    jaccard = both / np.maximum(either, 1)
    order = np.argsort(-jaccard, kind="stable")[:PAIRS]
    return tuple(
        Pair(
            first=names[rows[i]],
            second=names[columns[i]],
            images=int(both[i]),
            jaccard=float(jaccard[i]),
        )
        for i in order
        if both[i]
    )
