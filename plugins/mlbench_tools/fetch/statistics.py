"""Label statistics of a data set, and their tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from mlbench.data.labels import Counts, cooccurrence
from mlbench.metrics.average_precision import scored_classes
from mlbench.text import count, shorten
from mlbench.types import Index, Splits
from mlbench_tools.fetch.terminal import table
from mlbench_tools.scoring.measures import GROUPS, by_training_positives

PAIRS = 10
"""The number of strongest label pairs that are listed."""
LISTED = 10
"""The number of images without labels that are named; ``--json`` names all."""


# --------------------------------------------------------------------------------------- counting
@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts of a data set.

    Attributes:
        splits: of each split the number of ``images``; of ``positives`` and ``unknown`` entries
            over all images and labels; labels ``left_out``, without an AP, as no positive or no
            negative is known; keys of ``unlabelled`` images, without a positive; the mean
            ``labels_per_image``; and ``per_image``: number of positives -> images with that many.
        labels: of each label its ``name`` and ``frequency``, and the images of each split in which
            it is present, and in which it is unknown.
        pairs: the strongest: ``first`` and ``second`` label, training ``images`` with both, and
            their share of those with either, ``jaccard``.
        cooccurrence: float32 [C, C], of training images, in the order of ``labels``.
    """

    dataset: str
    identity: str
    splits: dict[str, dict[str, Any]]
    labels: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    cooccurrence: Counts


def label_statistics(dataset: str, splits: Splits) -> Statistics:
    """Count the labels of both splits; the pairs are those of the training split."""
    train_NC, test_NC = splits.train.targets, splits.test.targets
    positives_C = (train_NC == 1).sum(axis=0)
    labels = {
        "name": splits.names,
        "frequency": [GROUPS[i] for i in by_training_positives(positives_C)],
        "train": positives_C.tolist(),
        "test": (test_NC == 1).sum(axis=0).tolist(),
        "train_unknown": (train_NC < 0).sum(axis=0).tolist(),
        "test_unknown": (test_NC < 0).sum(axis=0).tolist(),
    }
    counts_CC = cooccurrence(train_NC)
    return Statistics(
        dataset=dataset,
        identity=splits.identity,
        splits={
            "train": _split(splits.train, splits.names),
            "test": _split(splits.test, splits.names),
        },
        labels=_rows(labels),
        pairs=_pairs(counts_CC, splits.names),
        cooccurrence=counts_CC,
    )


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _split(index: Index, names: tuple[str, ...]) -> dict[str, Any]:
    per_image_N = (index.targets == 1).sum(axis=1)
    numbers, images = np.unique(per_image_N, return_counts=True)
    return {
        "images": len(index),
        "positives": int(per_image_N.sum()),
        "unknown": int((index.targets < 0).sum()),
        "left_out": [names[c] for c in np.flatnonzero(~scored_classes(index.targets)).tolist()],
        "unlabelled": [index.keys[i] for i in np.flatnonzero(per_image_N == 0).tolist()],
        "labels_per_image": float(per_image_N.mean()) if len(index) else 0.0,
        "per_image": dict(zip(numbers.tolist(), images.tolist(), strict=True)),
    }


def _pairs(counts_CC: Counts, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The pairs with the largest Jaccard index, ties in the order of the labels."""
    positives_C = counts_CC.diagonal().astype(np.int64)
    rows, columns = np.nonzero(np.triu(counts_CC, 1))
    both = counts_CC[rows, columns].astype(np.int64)
    jaccard = both / (positives_C[rows] + positives_C[columns] - both)
    order = np.argsort(-jaccard, kind="stable")[:PAIRS]
    pairs = {
        "first": [names[c] for c in rows[order]],
        "second": [names[c] for c in columns[order]],
        "images": both[order].tolist(),
        "jaccard": jaccard[order].tolist(),
    }
    return _rows(pairs)


# ----------------------------------------------------------------------------------------- tables
def tables(found: Statistics) -> Iterator[Table | str]:
    """What ``mlbench data stats`` prints."""
    yield f"{found.dataset}: {found.identity}"
    columns = ("", "images", "without labels", "labels per image", "positives", "unknown labels")
    rows: list[Sequence[object]] = []
    for name, split in found.splits.items():
        without, mean = len(split["unlabelled"]), f"{split['labels_per_image']:.2f}"
        rows.append((name, split["images"], without, mean, split["positives"], split["unknown"]))
    yield table(columns, rows, text=("",))
    per_image = {name: split["per_image"] for name, split in found.splits.items()}
    numbers = sorted(set().union(*per_image.values()))
    rows = [(str(n), *(images.get(n, 0) for images in per_image.values())) for n in numbers]
    yield table(("labels in an image", *per_image), rows, text=())
    for name, split in found.splits.items():
        if unlabelled := split["unlabelled"]:
            yield f"without labels in {name}: {shorten(unlabelled, LISTED)}"
        if left_out := split["left_out"]:
            yield (
                f"{count(len(left_out), 'label')} without an AP in {name}, as no image is "
                f"known to have it or none to lack it: {shorten(left_out, LISTED)}"
            )
    columns = ("label", "train", "test", "unknown in train", "in test", "frequency")
    order = ("name", "train", "test", "train_unknown", "test_unknown", "frequency")
    labels = sorted(found.labels, key=lambda label: -label["train"])
    rows = [[label[field] for field in order] for label in labels]
    yield table(columns, rows, text=("label", "frequency"))
    for group in GROUPS:
        names = [label["name"] for label in found.labels if label["frequency"] == group]
        yield f"{group}: {count(len(names), 'label')}{': ' + ', '.join(names) if names else ''}"
    yield "\nStrongest pairs (images with both, of those with either):"
    for pair in found.pairs:
        yield "  {first} + {second}: {images:,} ({jaccard:.1%})".format(**pair)
    yield "\n--json prints the co-occurrence of all pairs, --plot FILE.png draws it."
