"""One page on how a data set was understood, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from mlbench.text import count, shorten
from mlbench.types import Splits
from mlbench_tools.fetch.terminal import table

ROWS = 10
"""Samples that are shown, evenly spread over the sorted keys."""
LABELS = 25
"""Labels whose counts are shown; ``mlbench data stats`` shows all."""


def summary(splits: Splits) -> dict[str, Any]:
    """The contents of the page as plain values, for ``--json``."""
    how = splits.interpretation
    targets_NC = np.concatenate([splits.train.targets, splits.test.targets])
    counts = [(targets_NC == state).sum(axis=0).tolist() for state in (1, 0, -1)]
    missing = sum(not file.is_file() for i in (splits.train, splits.test) for file in i.files)
    return {
        "identity": splits.identity,
        "warnings": [*(how.warnings if how else ()), *_other_sizes(splits)],
        "read": dict(how.facts) if how else _official(splits),
        "splits": {"train": len(splits.train), "test": len(splits.test)},
        "missing": missing,
        "labels": {
            name: dict(zip(("present", "absent", "unknown"), numbers, strict=True))
            for name, *numbers in zip(splits.names, *counts, strict=True)
        },
        "rows": [*_rows(splits)],
    }


def _official(splits: Splits) -> dict[str, str]:
    sizes = ", ".join(f"{split} {part.images:,}" for split, part in splits.official.items())
    return {"set": splits.card.title, **({"official sizes": sizes} if sizes else {})}


def _other_sizes(splits: Splits) -> Iterator[str]:
    for name, index in (("train", splits.train), ("test", splits.test)):
        official = splits.official.get(name)
        if official is not None and official.images != len(index):
            yield (
                f"{name} has {count(len(index), 'image')}, the official split {official.images:,}: "
                f"this is another edition of {splits.card.title}, whose scores do not compare with "
                "published ones"
            )


def _rows(splits: Splits) -> Iterator[dict[str, Any]]:
    samples = sorted(
        (key, split, row)
        for split, index in (("train", splits.train), ("test", splits.test))
        for key, row in zip(index.keys, index.targets.tolist(), strict=True)
    )
    for place in np.unique(np.linspace(0, len(samples) - 1, ROWS).astype(int)):
        key, split, row = samples[place]
        states = [
            [name for name, state in zip(splits.names, row, strict=True) if state == wanted]
            for wanted in (1, -1)
        ]
        yield {"picture": key, "split": split, "labels": states[0], "unknown": states[1]}


def page(name: str, found: dict[str, Any], typed: str) -> Iterator[Table | str]:
    """Yield warnings, how a data set was read, counts and samples; commands name it as typed."""
    for warning in found["warnings"]:
        yield f"warning: {warning}"
    if found["missing"]:
        yield f"warning: {count(found['missing'], 'picture')} missing: mlbench data verify {typed}"
    yield f"{name}: {found['identity']}"
    width = max(map(len, found["read"]))
    for what, how in found["read"].items():
        yield f"  {what:{width}}  {how}"
    labels: dict[str, dict[str, int]] = found["labels"]
    unknown = sum(states["unknown"] for states in labels.values())
    sizes = ", ".join(f"{split} {size:,}" for split, size in found["splits"].items())
    known = f", {count(unknown, 'time')} unknown" if unknown else ", known everywhere"
    yield f"{sizes} pictures; {count(len(labels), 'label')}{known}"
    order = sorted(labels.items(), key=lambda item: -item[1]["present"])
    rows: list[Sequence[object]] = [(label, *map(str, n.values())) for label, n in order[:LABELS]]
    yield table(("label", "present", "absent", "unknown"), rows, text=("label",))
    if len(order) > LABELS:
        yield f"and {count(len(order) - LABELS, 'label')} more: mlbench data stats {typed}"
    lines = [
        (row["picture"], row["split"], shorten(row["labels"], 8), shorten(row["unknown"], 4))
        for row in found["rows"]
    ]
    columns = ("picture", "split", "labels as read", "unknown")[: 4 if unknown else 3]
    yield table(columns, [line[: len(columns)] for line in lines], columns)
