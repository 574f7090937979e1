"""A data set opened for a run: its splits, the labels that take part, and which edition it is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlbench import registry
from mlbench.data.validation import cut, validation_keys
from mlbench.types import (
    DataError,
    Dataset,
    Index,
    ObjectCounts,
    PluginError,
    Split,
    SplitCard,
    Splits,
    SuiteError,
    digest,
)

CORE_PARAMETERS = ("root", "cache")
"""Parameters of a data set's factory that the core gives and no user."""
LISTED = 5
"""How many images an error names."""


def open_splits(
    name: str,
    options: Mapping[str, Any],
    root: Path | None,
    cache: Path,
    *,
    labels: Sequence[str] | None = None,
    holdout: float = 0.0,
    validation: bool = False,
    allow_missing: bool = False,
) -> Splits:
    """Open a data set by name.

    Args:
        name: of the plugin.
        options: of its factory.
        root: the folder that ``--data`` names.
        cache: a folder to write to.
        labels: the labels that take part, None for all.
        holdout: part of the training split that is scored instead of the test split.
        validation: cut the validation split off train (see ``mlbench.data.validation``).
        allow_missing: whether listed pictures may be absent; the caller then leaves them out.

    Raises:
        DataError: files are missing or malformed, or an image is in both splits.
        PluginError: no such data set, or it needs an argument (``manifest:photos.csv``).
        SuiteError: a label or an option that the data set lacks.
    """
    plugin = registry.find("dataset", name)
    factory = plugin.load()
    if plugin.argument is None and registry.asks_for_argument(factory, CORE_PARAMETERS):
        raise PluginError(f"dataset {name!r} needs an argument: write {name}:SOMETHING")
    known = registry.options(factory, CORE_PARAMETERS)
    for option in options:
        if option not in known:
            raise SuiteError(registry.unknown(f"option {option!r} of {name}", option, known))
    dataset: Dataset = factory(root, cache, **options)
    missing = dataset.missing()
    if missing and not allow_missing:
        raise DataError(missing)
    train, test = dataset.index("train"), dataset.index("test")
    for split, index in (("train", train), ("test", test)):
        if not len(index):
            raise DataError(
                f"the {split} split of {name} is empty; restore its lists under {root or cache}, "
                "or choose another split by its options"
            )
    _refuse_shared(name, train, test, dataset.card.shared_images)
    found = digest(train, test, dataset.names)
    identity = dataset.card.identities.get(found, f"{name.replace(':', '-')}-unknown-{found}")
    held = validation_keys(dataset, train, identity) if validation else []
    names = dataset.names
    columns = list(range(len(names)))
    if labels is not None:
        columns = _columns(name, names, labels)
        train, test = train.select(columns), test.select(columns)
        names = tuple(labels)
        identity += f"-{len(names)}-labels"
    if holdout:
        train, test = _hold_out(train, holdout)
        identity += f"-holdout-{holdout:g}"
    if labels is not None or holdout:
        found = digest(train, test, names)
    rest, apart = cut(train, held) if validation else (train, None)
    objects = partial(_count_objects, name, dataset, columns)
    # What is held out of train is no split that a card could know.
    official = {} if holdout else _official(dataset)
    return Splits(
        dataset.card, names, rest, test, found, identity, apart, official=official, objects=objects
    )


def _official(dataset: Dataset) -> dict[str, SplitCard]:
    """What the card says of the splits that the options chose."""
    parts: tuple[Split, ...] = ("train", "test")
    called = {part: dataset.official_split(part) or "" for part in parts}
    known = dataset.card.splits
    return {part: known[name] for part, name in called.items() if name in known}


def _count_objects(
    name: str, dataset: Dataset, columns: Sequence[int], index: Index
) -> ObjectCounts:
    """How many objects the images of an index hold of each label that takes part: [C].

    What the labels say counts: an object of a label that is absent or unknown is none, and an image
    has one object, at least, of each of its labels. So there are never fewer than positives.
    """
    found_NL = dataset.objects(index.keys)
    if found_NL is None:
        raise PluginError(
            f"{name} does not tell how many objects of a label an image holds, as its labels are "
            "of whole images"
        )
    wanted = (len(index), len(dataset.names))
    if found_NL.shape != wanted:
        raise PluginError(f"{name} gives counts of objects of shape {found_NL.shape}, not {wanted}")
    counts_NC = np.maximum(found_NL[:, list(columns)], 1)
    return np.asarray(np.where(index.targets == 1, counts_NC, 0).sum(axis=0), np.int64)


def _refuse_shared(name: str, train: Index, test: Index, allowed: str) -> None:
    """A key stands for one image of one split, and so does a file, unless the card says why not."""
    for split, index in (("train", train), ("test", test)):
        if len(set(index.keys)) < len(index):
            twice = [key for key, count in Counter(index.keys).items() if count > 1]
            raise DataError(
                f"{len(twice)} keys of the {split} split of {name} stand for several images: "
                f"{_first(twice)}; give each image a key of its own"
            )
    keys, files = set(train.keys), set(train.files)
    shared = [
        key for key, file in zip(test.keys, test.files, strict=True) if key in keys or file in files
    ]
    if shared and not allowed:
        raise DataError(
            f"{len(shared)} images of {name} are in train and in test: {_first(shared)}. Scores on "
            "what was trained on say nothing; take them out of one of the two lists"
        )


def _first(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(repr, names[:LISTED])) + more


def _columns(dataset: str, names: Sequence[str], labels: Sequence[str]) -> list[int]:
    if not labels or len(set(labels)) != len(labels):
        raise SuiteError(f"labels must be a list of different names, got {list(labels)}")
    for label in labels:
        if label not in names:
            raise SuiteError(registry.unknown(f"label {label!r}: {dataset} lacks it", label, names))
    return [names.index(label) for label in labels]


def _hold_out(index: Index, part: float) -> tuple[Index, Index]:
    """Cut by a hash of the key: fixed, whatever the order or the number of images."""
    draws = [int(hashlib.sha256(k.encode()).hexdigest()[:8], 16) / 2**32 for k in index.keys]
    out = np.array(draws) < part
    if out.all() or not out.any():
        raise SuiteError(f"holdout {part:g} of {len(index)} images leaves nothing on one side")
    return index.take(np.flatnonzero(~out)), index.take(np.flatnonzero(out))
