"""Checks of labels, images and targets against each other, the card and the data set itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from mlbench.data.noise import edition
from mlbench.types import Index, LabelNoise, Predictions, keys_digest, split_digest
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, few, finding, not_checked


def labels(case: Case) -> Iterator[Remark]:
    """One order of the labels: the record's, the predictions', the run's and the data set's."""
    names, spec = case.record.label_names, case.spec
    if len(set(names)) < len(names):
        yield finding("label names of the record repeat", "names that differ", few(_twice(names)))
    predicted = case.pack.predicted
    if predicted is not None and predicted.names != names:
        yield _other_order(
            "the predictions have other labels than the record", names, predicted.names
        )
    if spec.labels is not None and spec.labels != names:
        yield _other_order("the record has other labels than the run", spec.labels, names)
    official = case.splits.names if case.splits else case.names
    if official is None:
        yield not_checked(f"the order of the labels, which no card of {spec.dataset} tells")
    elif spec.labels is None and official != names:
        yield _other_order(f"the labels are not those of {spec.dataset}", official, names)
    elif unknown := [name for name in names if name not in official]:
        yield finding(f"{spec.dataset} has no such label", few(official), few(unknown))


def _other_order(text: str, expected: Sequence[str], found: Sequence[str]) -> Remark:
    if sorted(expected) == sorted(found):
        at = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
        text += ": the same ones in another order"
        return finding(text, f"{expected[at]!r} in column {at}", repr(found[at]))
    pairs = enumerate(zip(expected, found, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected), len(found)))
    return finding(
        text,
        f"{len(expected)} labels, in column {at} {few(expected[at : at + 1]) or 'none'}",
        f"{len(found)} labels, in column {at} {few(found[at : at + 1]) or 'none'}",
    )


def predictions(case: Case) -> Iterator[Remark]:
    """Shapes, values and keys that predictions can have, on the test and validation splits."""
    if case.pack.predicted is None:
        return
    test = case.pack.predicted.predictions
    yield from _values("test", test, case.record.test_images, len(case.record.label_names))
    validation = test.validation
    expected = case.record.validation_images
    if validation is None:
        if expected:
            text = "the predictions on the validation split are missing"
            yield finding(text, f"{expected} images", "none")
        return
    yield from _values("validation", validation, expected, len(case.record.label_names))
    if shared := sorted(set(test.keys) & set(validation.keys)):
        text = "images of the validation split are scored, too"
        yield finding(text, "none in both", f"{len(shared)}: {few(shared)}")


def _values(split: str, predicted: Predictions, images: int, labels: int) -> Iterator[Remark]:
    keys, logits, targets = predicted.keys, predicted.logits, predicted.targets
    shape = (images, labels)
    for name, array in (("logits", logits), ("targets", targets)):
        if array.shape != shape:
            text = f"{name} of the {split} split do not fit the record's images and labels"
            yield finding(text, list(shape), list(array.shape))
    if len(keys) != images:
        yield finding(f"keys of the {split} split are not one an image", images, len(keys))
    if twice := _twice(keys):
        text = f"keys of the {split} split are there more than once: {len(twice)}"
        yield finding(text, "each key once", few(twice))
    bad = np.argwhere(~np.isfinite(logits))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        where = f"{len(bad)}, the first {logits[row, column]} in row {row}, column {column}"
        yield finding(f"logits of the {split} split are NaN or infinite", "finite numbers", where)
    if strange := sorted(set(np.unique(targets).tolist()) - {-1, 0, 1}):
        text = f"targets of the {split} split have values that mean nothing"
        yield finding(text, "1 present, 0 absent, -1 unknown", few(strange))


def identity(case: Case) -> Iterator[Remark]:
    """The record names the edition that the spec's digest is of, and all of it was there."""
    spec, record = case.spec, case.record
    if record.coverage is not None and not record.coverage.complete and not spec.incomplete:
        text = "images could not be used, and the run says nothing of it"
        yield finding(text, "all images usable", record.coverage.model_dump_json())
    known = case.card.identities if case.card else {}
    if not known and (case.card is None or f"-unknown-{spec.data}" not in record.identity):
        yield not_checked(
            f"whether {spec.data} is {record.identity}: no card tells of its editions"
        )
        return
    unknown = f"{spec.dataset.replace(':', '-')}-unknown-{spec.data}"
    if case.plain:
        expected = known.get(spec.data, unknown)
        if record.identity != expected:
            text = f"the record names another edition than the digest {spec.data} of its data"
            yield finding(text, expected, record.identity)
        return
    for said, part in (
        (spec.labels is not None, f"-{len(spec.labels or ())}-labels"),
        (bool(spec.holdout), f"-holdout-{spec.holdout:g}"),
        (spec.incomplete, "-incomplete-"),
        (spec.label_noise != LabelNoise(), f"-{edition(spec.label_noise)}"),
    ):
        if said and part not in record.identity:
            text = "a part of the data goes by the name of the whole"
            yield finding(text, f"a name with {part!r}", record.identity)


def card(case: Case) -> Iterator[Remark]:
    """The test split is the one that the card knows: its images, then its labels."""
    predicted, known, spec = case.pack.predicted, case.edition, case.spec
    if predicted is None or case.splits is not None:
        return
    if known is None or spec.holdout or spec.incomplete:
        part = "of a part of it" if known else f"of {case.record.identity}"
        remedy = "which no card tells; --data DIR opens the data set itself"
        yield not_checked(f"images and labels of the test split {part}, {remedy}")
        return
    test, record = predicted.predictions, case.record
    if len(test.keys) != len(test.targets):
        return
    images = record.train_images + record.validation_images
    if images != known.train_images:
        yield finding("another number of training images", known.train_images, images)
    if len(test.keys) != known.test_images:
        text = "images are missing from the test split, or were added"
        yield finding(text, f"{known.test_images} images", f"{len(test.keys)} images")
    found = keys_digest(test.keys)
    if found != known.test_keys:
        text = f"the images are not those of the test split of {record.identity}"
        yield finding(text, f"keys of digest {known.test_keys}", f"{found}{_known_as(case, found)}")
        return
    if spec.labels is not None:
        yield not_checked("targets of some labels alone; --data DIR opens the data set itself")
        return
    names = case.names or record.label_names
    found = split_digest(test.keys, test.targets, names)
    if found != known.test:
        text = "the images are right, but their targets are not: edited, or of other labels"
        yield finding(text, f"digest {known.test}", f"{found}{_permuted(case, known.test)}")


def _known_as(case: Case, keys: str) -> str:
    """Which other edition has this test split."""
    editions = case.card.editions if case.card else {}
    names = [name for name, edition in editions.items() if edition.test_keys == keys]
    return f", the test split of {few(names)}" if names else ""


def _permuted(case: Case, expected: str) -> str:
    """Whether the columns are those of another order in circulation."""
    assert case.pack.predicted is not None, "there are targets"
    test, names = case.pack.predicted.predictions, case.names or ()
    orders = {**(case.card.orders if case.card else {}), "alphabetical": tuple(sorted(names))}
    for order, other in orders.items():
        if len(other) == test.targets.shape[1] == len(names):
            columns = test.targets[:, [other.index(name) for name in names]]
            if split_digest(test.keys, columns, names) == expected:
                return f": the columns are in the {order} order"
    return ""


def data(case: Case) -> Iterator[Remark]:
    """The data set itself: digest, counts, keys, and every target."""
    splits, record, spec = case.splits, case.record, case.spec
    if splits is None:
        return
    if splits.digest != spec.data and not spec.incomplete:
        if splits.identity != record.identity:
            yield not_checked(
                f"images and labels: --data holds {splits.identity}, the run was on "
                f"{record.identity}"
            )
            return
        text = f"the digest is not that of {splits.identity}"
        yield finding(text, splits.digest, spec.data)
    if splits.identity != record.identity and not spec.incomplete:
        yield finding("the record names another edition", splits.identity, record.identity)
    if not spec.incomplete and record.train_images != len(splits.train):
        text = "another number of training images"
        yield finding(text, len(splits.train), record.train_images)
    if case.pack.predicted is None:
        return
    test = case.pack.predicted.predictions
    yield from _against("test", test, splits.test, may_lack=spec.incomplete)
    if test.validation is not None and splits.validation is not None:
        yield from _against("validation", test.validation, splits.validation, spec.incomplete)


def _against(split: str, found: Predictions, true: Index, may_lack: bool) -> Iterator[Remark]:
    rows, there = {key: row for row, key in enumerate(true.keys)}, set(found.keys)
    lacking = [key for key in true.keys if key not in there]
    added = [key for key in dict.fromkeys(found.keys) if key not in rows]
    if lacking and not may_lack:
        text = f"images of the {split} split are missing"
        yield finding(text, f"{len(true)} images", f"{len(lacking)} are not there: {few(lacking)}")
    if added:
        text = f"images were added to the {split} split"
        yield finding(text, f"{len(true)} images", f"{len(added)} more: {few(added)}")
    if found.targets.shape[1:] != true.targets.shape[1:] or len(found.keys) != len(found.targets):
        return
    places = [place for place, key in enumerate(found.keys) if key in rows]
    theirs, ours = found.targets[places], true.targets[[rows[found.keys[p]] for p in places]]
    wrong = np.argwhere(theirs != ours)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        text = f"targets of the {split} split that are not the data set's: {len(wrong)}"
        where = f"image {found.keys[places[row]]}, column {column}"
        yield finding(text, f"{ours[row, column]} for {where}", int(theirs[row, column]))


def _twice(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
