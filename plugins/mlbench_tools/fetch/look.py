"""One page on how a data set was understood, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from mlbench.text import count, shorten
from mlbench.types import Splits
from mlbench_tools.fetch.terminal import table

ROWS = 10
"""Samples that are shown, evenly spread over the sorted keys."""
LABELS = 25
"""Labels whose counts are shown; ``mlbench data stats`` shows all."""


def page(name: str, splits: Splits, typed: str) -> Iterator[Table | str]:
    """Yield warnings, how a data set was read, counts and samples; commands name it as typed."""
    how, both = splits.interpretation, (splits.train, splits.test)
    for warning in (*(how.warnings if how else ()), *_other_sizes(splits)):
        yield f"warning: {warning}"
    if missing := sum(not file.is_file() for index in both for file in index.files):
        yield f"warning: {count(missing, 'picture')} missing: mlbench data verify {typed}"
    yield f"{name}: {splits.identity}"
    sizes = ", ".join(f"{split} {part.images:,}" for split, part in splits.official.items())
    official = {"set": splits.card.title, **({"official sizes": sizes} if sizes else {})}
    read = how.facts if how else official
    width = max(map(len, read))
    for what, said in read.items():
        yield f"  {what:{width}}  {said}"
    targets_NC = np.concatenate([index.targets for index in both])
    counts = np.stack([(targets_NC == state).sum(axis=0) for state in (1, 0, -1)])
    unknown, labels = int(counts[2].sum()), count(len(splits.names), "label")
    known = f", {count(unknown, 'time')} unknown" if unknown else ", known everywhere"
    yield f"train {len(splits.train):,}, test {len(splits.test):,} pictures; {labels}{known}"
    order = np.argsort(-counts[0], kind="stable")[:LABELS]
    rows = [(splits.names[c], *map(str, counts[:, c])) for c in order]
    yield table(("label", "present", "absent", "unknown"), rows, text=("label",))
    if len(splits.names) > LABELS:
        yield f"and {count(len(splits.names) - LABELS, 'label')} more: mlbench data stats {typed}"
    columns = ("picture", "split", "labels as read", "unknown")[: 4 if unknown else 3]
    yield table(columns, [row[: len(columns)] for row in _samples(splits)], columns)


def _other_sizes(splits: Splits) -> Iterator[str]:
    for name, index in (("train", splits.train), ("test", splits.test)):
        official = splits.official.get(name)
        if official is not None and official.images != len(index):
            yield (
                f"{name} has {count(len(index), 'image')}, the official split {official.images:,}: "
                f"this is another edition of {splits.card.title}, whose scores do not compare with "
                "published ones"
            )


def _samples(splits: Splits) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, split, labels and unknown labels of ``ROWS`` samples."""
    samples = sorted(
        (key, split, row)
        for split, index in (("train", splits.train), ("test", splits.test))
        for key, row in zip(index.keys, index.targets.tolist(), strict=True)
    )
    for place in np.unique(np.linspace(0, len(samples) - 1, ROWS).astype(int)):
        key, split, row = samples[place]
        present, unknown = (
            [name for name, state in zip(splits.names, row, strict=True) if state == wanted]
            for wanted in (1, -1)
        )
        yield key, split, shorten(present, 8), shorten(unknown, 4)
