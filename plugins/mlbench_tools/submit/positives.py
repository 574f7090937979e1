"""Checks of the training positives: no pack holds the training labels that they were counted of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, few, finding, not_checked


def train_positives(case: Case) -> Iterator[Remark]:
    """How many training images have each label is possible, and what the data set has."""
    record, found = case.record, case.record.train_positives
    if found is None:
        return
    if case.spec.checkpoint:
        text = "a checkpoint that was only scored has training positives"
        yield finding(text, "none", few(found))
        return
    if len(found) != len(record.label_names):
        text = "the record does not have one number of training positives a label"
        yield finding(text, len(record.label_names), len(found))
        return
    named = list(zip(record.label_names, found, strict=True))
    if wrong := [(name, n) for name, n in named if not 0 <= n <= record.train_images]:
        text = f"impossible training positives of {len(wrong)} of the labels"
        expected = f"0 to {record.train_images}, the training images"
        yield finding(text, expected, few([f"{name} {n}" for name, n in wrong]))
        return
    yield from _against_data(case, found) if case.splits else _against_card(case, found)


def _against_data(case: Case, found: tuple[int, ...]) -> Iterator[Remark]:
    splits = case.splits
    assert splits is not None, "the data set is open"
    if splits.digest != case.spec.data or len(splits.names) != len(found):
        yield not_checked("training positives: --data holds another edition than the run's")
        return
    true = np.count_nonzero(splits.train.targets == 1, axis=0).tolist()
    triples = zip(splits.names, true, found, strict=True)
    wrong = [(name, a, b) for name, a, b in triples if a != b]
    if wrong:
        text = f"training positives of {len(wrong)} of the labels are not the data set's"
        expected, said = ([f"{w[0]} {w[i]}" for w in wrong] for i in (1, 2))
        yield finding(text, few(expected), few(said))


def _against_card(case: Case, found: tuple[int, ...]) -> Iterator[Remark]:
    """The card knows the sum, of the whole official split as it is opened without options."""
    record, spec = case.record, case.spec
    known = case.card.splits.get("train") if case.card else None
    whole = case.plain and not spec.dataset_options and not record.validation_images
    named = case.card is not None and spec.data in case.card.identities
    if known is None or known.positives is None or not (whole and named):
        yield not_checked("training positives: no card tells them; --data DIR counts them")
    elif record.train_images != known.images:
        yield from _of_a_part(found, known.positives)
    elif sum(found) != known.positives:
        yield finding("another sum of training positives", known.positives, sum(found))
    else:
        yield not_checked("which labels have the training positives; --data DIR counts them")


def _of_a_part(found: tuple[int, ...], official: int) -> Iterator[Remark]:
    """A part of the images has no more positives than all of them."""
    if sum(found) > official:
        text = "a part of the official images has more training positives than all of them"
        yield finding(text, f"{official} at most", sum(found))
    else:
        yield not_checked("training positives of a part of the official images")
