"""Open a data set for a run: its splits, the labels that take part, and its edition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mlbench import registry
from mlbench.data.decode import MISSING, problems
from mlbench.data.noise import with_known_labels, with_label_noise
from mlbench.data.stratify import groups_of, hold_out, validation_keys
from mlbench.text import count, shorten, unknown
from mlbench.types import (
    Coverage,
    DataError,
    Dataset,
    Index,
    KnownLabels,
    LabelNoise,
    ObjectCounts,
    Places,
    PluginError,
    RunSpec,
    Split,
    SplitCoverage,
    Splits,
    SuiteError,
    digest,
    files_digest,
    sampled_files,
)

Check = Callable[[Sequence[Path]], Mapping[Path, str]]
"""Image files -> what is wrong with each unusable one (see ``mlbench.data.decode.problems``)."""


@dataclass(frozen=True)
class Subset:
    """The labels and images of a data set that take part in a run.

    Attributes:
        labels: the labels that take part; None for all.
        holdout: fraction of the training split that is scored instead of the test split.
        fold: number of the held-out part; folds do not overlap.
        validation: split a validation part off train.
        allow_missing: image files may be absent.
    """

    labels: Sequence[str] | None = None
    holdout: float = 0.0
    fold: int = 0
    validation: bool = False
    allow_missing: bool = False


# ------------------------------------------------------------------------------------- for a run
def open_run(spec: RunSpec, places: Places, check: Check | None = None) -> Splits:
    """Open the data of a run; raises what ``open_splits`` and ``as_trained_on`` raise.

    The caller must compare ``digest`` with ``spec.data``.
    """
    validation = spec.settings.selection == "validation"
    subset = Subset(spec.labels, spec.holdout, spec.holdout_fold, validation, spec.incomplete)
    splits = open_splits(spec.dataset, spec.dataset_options, places.data, places.cache, subset)
    noise, known = spec.label_noise, spec.known_labels
    return as_trained_on(splits, noise, known, places, incomplete=spec.incomplete, check=check)


def open_few(spec: RunSpec, places: Places, images: int) -> Splits:
    """As ``open_run``, with at most ``images`` evenly spaced images of train and of test."""

    def few(index: Index) -> Index:
        rows = np.linspace(0, len(index) - 1, min(images, len(index)))
        return index.take(rows.astype(np.int64))

    splits = open_run(spec, places)
    return replace(splits, train=few(splits.train), test=few(splits.test), before_noise=None)


def as_trained_on(
    splits: Splits,
    noise: LabelNoise,
    known: KnownLabels,
    places: Places,
    *,
    incomplete: bool,
    check: Check | None = None,
) -> Splits:
    """The splits as a run sees them: with label noise, and with known labels for heads.

    Images that ``check`` finds unusable are left out. Without ``check``, files are decoded to find
    them only if ``incomplete``.

    Raises:
        DataError: nothing is left of a split.
    """
    if check is None and incomplete:
        check = partial(problems, cache=places.cache, workers=places.workers)
    if check is not None:
        splits = leave_out(splits, check(files(splits)))
    return with_known_labels(with_label_noise(splits, noise), known)


# ------------------------------------------------------------------------------------- as listed
@contextmanager
def _reading() -> Iterator[None]:
    """Turn errors of a data set's code into typed errors."""
    try:
        with registry.typed_errors(registry.plugins("dataset"), "the data set cannot be opened"):
            yield
    except OSError as error:
        raise DataError(
            f"the data set cannot be read: {error}; give this user the right to read that path and "
            "the folders above it, or copy it again"
        ) from error


@_reading()
def open_splits(
    name: str, options: Mapping[str, Any], root: Path | None, cache: Path, subset: Subset = Subset()
) -> Splits:
    """Open a data set with every image that it lists.

    Raises:
        DataError: files are missing or malformed, or an image is in both splits.
        PluginError: no such data set or option, or it needs an argument (``manifest:photos.csv``).
        SuiteError: an unknown label, or a held-out part that does not exist.
    """
    name, options = registry.recorded_as(name, options)
    dataset, train, test = _listed(name, options, root, cache, subset.allow_missing)
    names, found = dataset.names, data_digest(train, test, dataset.names)
    listed, _, images = found.partition("-")
    identity = dataset.card.identities.get(listed, f"{name.replace(':', '-')}-unknown-{found}")
    # Chosen before labels and holdout narrow the split, so that these do not affect the choice.
    chosen = set(validation_keys(dataset, train, identity)) if subset.validation else set()
    edition, sample = dataset.card.editions.get(identity), sampled_files(train, test).values()
    others = edition is not None and edition.images not in ("", images)
    if others and all(file.is_file() for file in sample):  # missing ones are reported elsewhere
        identity += f"-images-{images}"
    groups = partial(groups_of, dataset, train.keys)
    columns, train, test, part = _narrow(name, dataset, train, test, subset)
    if part:
        names = tuple(dataset.names[column] for column in columns)
        found = data_digest(train, test, names)
    known, held = dataset.card.splits, None
    chosen_splits = ((split, dataset.official_split(split)) for split in get_args(Split))
    official = {split: known[one] for split, one in chosen_splits if one in known}
    if subset.validation:
        train, held = train.partition([key in chosen for key in train.keys])
    return Splits(
        *(dataset.card, names, train, test, found, identity + part),
        validation=held,
        # The card does not describe parts that are held out of train.
        official={} if subset.holdout else official,
        objects=partial(_count_objects, name, dataset, columns),
        groups=groups,
        interpretation=dataset.interpretation(),
    )


def _listed(
    name: str, options: Mapping[str, Any], root: Path | None, cache: Path, allow_missing: bool
) -> tuple[Dataset, Index, Index]:
    """The data set, and its train and test splits as listed."""
    plugin = registry.find("dataset", name)
    if registry.needs_argument(plugin):
        raise PluginError(f"dataset {name!r} needs an argument: write {name}:SOMETHING")
    dataset: Dataset = registry.make("dataset", name, (root, cache), options)
    if (missing := dataset.missing()) and not allow_missing:
        raise DataError(missing)
    train, test = dataset.index("train"), dataset.index("test")
    for split, index in (("train", train), ("test", test)):
        if not len(index):
            raise DataError(
                f"the {split} split of {name} is empty; restore its lists under {root or cache}, "
                "or choose another split by its options"
            )
        _check_targets(f"the {split} split of {name}", index, dataset.names)
    one_a_folder = {file.parent: file for index in (train, test) for file in index.files}
    for file in one_a_folder.values():
        file.exists()  # a PermissionError if its folder is locked; a missing one is no error here
    _refuse_shared(name, train, test, dataset.card.shared_images)
    return dataset, train, test


def _narrow(
    name: str, dataset: Dataset, train: Index, test: Index, subset: Subset
) -> tuple[list[int], Index, Index, str]:
    """The columns and images that take part, and the suffix of the edition's name."""
    columns, part = list(range(len(dataset.names))), ""
    if (labels := subset.labels) is not None:
        if not labels or len(set(labels)) != len(labels):
            raise SuiteError(f"labels must be a list of different names, got {list(labels)}")
        for one in (label for label in labels if label not in dataset.names):
            raise SuiteError(unknown(f"label {one!r}: {name} lacks it", one, dataset.names))
        columns = [dataset.names.index(label) for label in labels]
        train, test = train.select(columns), test.select(columns)
        part = f"-{len(columns)}-labels"
    if subset.holdout or subset.fold:
        held = subset.holdout, subset.fold, subset.validation
        train, test = hold_out(dataset, train, *held)
        part += f"-holdout-{subset.holdout:g}" + (f"-fold-{subset.fold}" if subset.fold else "")
        part += "-and-validation" if subset.validation else ""
    return columns, train, test, part


def data_digest(train: Index, test: Index, names: Sequence[str]) -> str:
    """Identity of labels and images, as ``Splits.digest``."""
    return f"{digest(train, test, names)}-{files_digest(train, test)}"


@_reading()
def _count_objects(
    name: str, dataset: Dataset, columns: Sequence[int], index: Index
) -> ObjectCounts:
    """The number of annotated objects of each label in the images of an index: [C].

    Labels take precedence: an image counts 0 for an absent or unknown label, and at least 1 for a
    present one, so that no label has fewer objects than positives.
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


def _check_targets(split: str, index: Index, names: Sequence[str]) -> None:
    """Refuse targets other than 1, 0 and -1, whatever their type."""
    found = np.asarray(index.targets)
    if len(wrong := np.argwhere((found != 1) & (found != 0) & (found != -1))):
        image, label = wrong[0]
        raise DataError(
            f"{count(len(wrong), 'target')} of {split} are not 1 present, 0 absent or -1 unknown, "
            f"such as {found[image, label]} of label {names[label]!r} in image "
            f"{index.keys[image]!r}; write 1 for a count, and -1 for what is not certain"
        )


def _refuse_shared(name: str, train: Index, test: Index, allowed: str) -> None:
    """Refuse a key that names two images, and an image in both splits unless the card allows it."""
    for split, index in (("train", train), ("test", test)):
        if len(set(index.keys)) < len(index):
            twice = [repr(key) for key, count in Counter(index.keys).items() if count > 1]
            raise DataError(
                f"{len(twice)} keys of the {split} split of {name} stand for several images: "
                f"{shorten(twice)}; give each image a key of its own"
            )
    keys, paths = set(train.keys), set(train.files)
    shared = [
        repr(key)
        for key, file in zip(test.keys, test.files, strict=True)
        if key in keys or file in paths
    ]
    if shared and not allowed:
        raise DataError(
            f"{len(shared)} images of {name} are in train and in test: {shorten(shared)}. Scores "
            "on training images say nothing; remove the images from one of the two lists"
        )


# ------------------------------------------------------------------------------- unusable images
def parts(splits: Splits) -> dict[str, Index]:
    """``train``, the validation part included, and ``test``."""
    return {"train": splits.whole_train, "test": splits.test}


def files(splits: Splits) -> list[Path]:
    """Every image file of both splits."""
    return [file for index in parts(splits).values() for file in index.files]


def coverage(splits: Splits, bad: Mapping[Path, str]) -> Coverage:
    """Count the listed, usable, missing and corrupt images of complete splits; see ``Check``."""
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
    known = not re.search("-(unknown|images)-", splits.identity)
    return Coverage(known=known, splits=found)


def leave_out(splits: Splits, bad: Mapping[Path, str]) -> Splits:
    """The splits without these files, with ``coverage``; the edition is renamed if any is removed.

    Raises:
        DataError: a split has no usable image.
    """
    covered = replace(splits, coverage=coverage(splits, bad))
    if not covered.incomplete:
        return covered

    def usable(name: str, index: Index) -> Index:
        left, _ = index.partition([file in bad for file in index.files])
        if not len(left):
            raise DataError(
                f"{splits.identity}: none of the images of its {name} split can be used; "
                "name the folder that holds them with --data DIR"
            )
        return left

    train, test = usable("train", splits.train), usable("test", splits.test)
    held = None if splits.validation is None else usable("validation", splits.validation)
    left = replace(covered, train=train, test=test, validation=held)
    found = data_digest(left.whole_train, test, splits.names)
    return replace(left, digest=found, identity=f"{splits.identity}-incomplete-{found}")
