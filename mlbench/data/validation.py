"""The validation part of train: its makers' own where they made one, else by stratification."""

from __future__ import annotations

import numpy as np

from mlbench.data.stratify import held_out, list_digest, stratify
from mlbench.types import DataError, Dataset, Index


def validation_keys(dataset: Dataset, train: Index, identity: str) -> list[str]:
    """Keys of the images of ``train`` to choose an epoch and thresholds by, sorted.

    Args:
        dataset: whose makers may have named them (see ``Dataset.validation_keys``).
        train: the whole training split, with all of its labels.
        identity: the edition, for the list's digest that the data set's card may hold.

    Raises:
        DataError: train is too small to be cut, the makers' list takes nothing or all of it, or
            the list is not the published one.
    """
    named = dataset.validation_keys()
    if named is None:
        size, groups = held_out(len(train)), dataset.train_groups()
        chosen = stratify(train.keys, train.targets, size, groups)
        keys = sorted(train.keys[i] for i in np.flatnonzero(chosen).tolist())
    else:
        keys = sorted(set(named).intersection(train.keys))
    if not 0 < len(keys) < len(train):
        raise DataError(
            f"{identity}: {len(keys)} of {len(train)} training images would be the validation "
            "split, so nothing is left to choose by or to train on; use --selection last"
        )
    published, found = dataset.card.validation.get(identity), list_digest(keys)
    if published not in (None, found):
        raise DataError(
            f"the validation split of {identity} has the digest {found}, but the published list "
            f"has {published}: scores would not compare. Use the data set and the mlbench that "
            "belong together, or --selection last"
        )
    return keys


def cut(train: Index, keys: list[str]) -> tuple[Index, Index]:
    """``train`` without the images of these keys, and those images, both in their old order."""
    held = set(keys)
    inside = np.array([key in held for key in train.keys], bool)
    return train.take(np.flatnonzero(~inside)), train.take(np.flatnonzero(inside))
