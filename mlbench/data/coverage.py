"""How much of a data set is in hand, and the data set without what is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlbench.data.decode import MISSING
from mlbench.types import Coverage, DataError, Index, SplitCoverage, Splits, digest


def parts(splits: Splits) -> dict[str, Index]:
    """Train as a whole, its validation part with it, and test."""
    return {"train": _whole_train(splits), "test": splits.test}


def files(splits: Splits) -> list[Path]:
    """Every image of both splits."""
    return [file for index in parts(splits).values() for file in index.files]


def coverage(splits: Splits, bad: Mapping[Path, str]) -> Coverage:
    """What can be used of the splits, before anything is left out.

    Args:
        splits: a data set, opened.
        bad: what is wrong with each file that cannot be used (see ``decode.problems``).
    """
    found = {}
    for name, index in parts(splits).items():
        reasons = [bad[file] for file in index.files if file in bad]
        card = splits.official.get(name)
        found[name] = SplitCoverage(
            images=len(index),
            usable=len(index) - len(reasons),
            missing=reasons.count(MISSING),
            corrupt=len(reasons) - reasons.count(MISSING),
            official=card.images if card else None,
        )
    return Coverage(known="-unknown-" not in splits.identity, splits=found)


def leave_out(splits: Splits, bad: Iterable[Path]) -> Splits:
    """The splits without these files, as an edition of its own; as they are if none is of them.

    Raises:
        DataError: nothing is left of a split.
    """
    gone = set(bad)
    if gone.isdisjoint(files(splits)):
        return splits
    train, test = _without(splits.train, gone), _without(splits.test, gone)
    validation = None if splits.validation is None else _without(splits.validation, gone)
    for name, index in (("train", train), ("test", test), ("validation", validation)):
        if index is not None and not len(index):
            raise DataError(
                f"{splits.identity}: none of the images of its {name} split can be used; "
                "name the folder that holds them with --data DIR"
            )
    cut = replace(splits, train=train, test=test, validation=validation, incomplete=True)
    found = digest(_whole_train(cut), test, splits.names)
    return replace(cut, digest=found, identity=f"{splits.identity}-incomplete-{found}")


def _without(index: Index, gone: set[Path]) -> Index:
    return index.take(np.flatnonzero([file not in gone for file in index.files]))


def _whole_train(splits: Splits) -> Index:
    train, held = splits.train, splits.validation
    if held is None:
        return train
    return Index(
        [*train.files, *held.files],
        [*train.keys, *held.keys],
        np.concatenate([train.targets, held.targets]),
    )
