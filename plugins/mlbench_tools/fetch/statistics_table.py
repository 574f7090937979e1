"""The statistics of a data set as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from mlbench.text import count
from mlbench_tools.fetch.statistics import Statistics

WIDEST = 25
"""The co-occurrence table is printed for up to so many labels; --json has it for any number."""

LISTED = 10
"""How many images without labels are named; --json names all."""


def tables(found: Statistics) -> Iterator[Table | str]:
    """What ``mlbench data stats`` prints, part by part."""
    yield f"{found.dataset}: {found.identity}"
    yield _splits(found)
    yield _per_image(found)
    for name, split in found.splits.items():
        if split.unlabelled:
            more = ", ..." if len(split.unlabelled) > LISTED else ""
            yield f"without labels in {name}: {', '.join(split.unlabelled[:LISTED])}{more}"
    yield _labels(found)
    groups = {
        group: [label.name for label in found.labels if label.frequency == group]
        for group in ("head", "middle", "tail")
    }
    for group, names in groups.items():
        yield f"{group}: {count(len(names), 'label')}{': ' + ', '.join(names) if names else ''}"
    yield "\nStrongest pairs (images with both, of those with either):"
    for pair in found.pairs:
        yield f"  {pair.first} + {pair.second}: {pair.images:,} ({pair.jaccard:.1%})"
    if len(found.labels) <= WIDEST:
        yield "\nTraining images with both labels:"
        yield _cooccurrence(found)
    else:
        yield "\nThe co-occurrence of so many labels: --json prints it, --plot FILE.png draws it."


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def _splits(found: Statistics) -> Table:
    table = _table(
        "", "images", "without labels", "labels per image", "positives", "unknown labels"
    )
    for name, split in found.splits.items():
        table.add_row(
            name,
            f"{split.images:,}",
            f"{split.without_labels:,}",
            f"{split.labels_per_image:.2f}",
            f"{split.positives:,}",
            f"{split.unknown:,}",
        )
    return table


def _per_image(found: Statistics) -> Table:
    numbers = sorted({number for split in found.splits.values() for number in split.per_image})
    table = _table("labels in an image", *found.splits)
    for number in numbers:
        images = [split.per_image.get(number, 0) for split in found.splits.values()]
        table.add_row(str(number), *(f"{n:,}" for n in images))
    return table


def _labels(found: Statistics) -> Table:
    table = _table("label", "train", "test", "unknown in train", "in test", "")
    for label in sorted(found.labels, key=lambda label: -label.train):
        counts = (label.train, label.test, label.train_unknown, label.test_unknown)
        table.add_row(label.name, *(f"{n:,}" for n in counts), label.frequency)
    return table


def _cooccurrence(found: Statistics) -> Table:
    table = _table("", *(label.name[:6] for label in found.labels))
    for label, row in zip(found.labels, found.cooccurrence, strict=True):
        table.add_row(label.name, *map(str, row))
    return table
