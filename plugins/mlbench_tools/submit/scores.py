"""What the record says of its predictions, recomputed from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlbench.metrics import score
from mlbench.metrics.average_precision import average_precision
from mlbench.types import MeasureError, Scores
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, few, finding, not_checked

TOLERANCE = 1e-4
"""Percentage points: a hundredth of what a board shows, and far above what machines differ by."""


def scores(case: Case) -> Iterator[Remark]:
    """Scores, interval and the AP of each label are those of the predictions."""
    record, predicted = case.record, case.pack.predicted
    if predicted is None or record.scores is None:
        return
    yield not_checked(
        "whether the predictions come from this model, and whether it was trained on the test split"
    )
    test = predicted.predictions
    try:
        recomputed, precisions = score(test.logits, test.targets)
    except MeasureError as error:
        yield not_checked(f"scores: the predictions cannot be scored ({error})")
        return
    for name in Scores.model_fields:
        expected, found = getattr(recomputed, name), getattr(record.scores, name)
        if not abs(expected - found) <= TOLERANCE:  # a NaN is no equal of anything
            yield finding(f"{name} is not what the predictions give", expected, found)
    if len(precisions) != len(record.average_precision):
        text = "the record does not have one average precision a label"
        yield finding(text, len(precisions), len(record.average_precision))
        return
    pairs = zip(record.label_names, precisions, record.average_precision, strict=False)
    wrong = [(name, a, b) for name, a, b in pairs if not _same(a, b)]
    if wrong:
        of = f"{len(wrong)} of the labels"
        text = f"the average precision of {of} is not what the predictions give"
        yield finding(
            text,
            few([f"{name} {_shown(expected)}" for name, expected, _ in wrong]),
            few([f"{name} {_shown(found)}" for name, _, found in wrong]),
        )


def selection(case: Case) -> Iterator[Remark]:
    """The epoch that was scored is the best of the log, and gave what the log says."""
    record, predicted = case.record, case.pack.predicted
    log = {one.epoch: one.mAP for one in record.epochs if one.mAP is not None}
    chosen = record.selected_epoch
    if predicted is None or chosen is None:
        return
    if not log or chosen not in log or log[chosen] < max(log.values()) - TOLERANCE:
        best = max(log, key=log.__getitem__) if log else "an epoch with a score"
        yield finding("the epoch that was selected is not the best of the log", best, chosen)
        return
    test = predicted.predictions
    seen = test.validation if case.spec.settings.selection == "validation" else test
    if seen is None:
        return
    try:
        expected = 100 * float(np.nanmean(average_precision(seen.logits, seen.targets)))
    except MeasureError as error:
        yield not_checked(f"the selection: the predictions cannot be scored ({error})")
        return
    if not abs(expected - log[chosen]) <= TOLERANCE:
        text = f"the mAP of epoch {chosen} in the log is not what the predictions give"
        yield finding(text, expected, log[chosen])


def _same(expected: float | None, found: float | None) -> bool:
    if expected is None or found is None:
        return expected is found
    return abs(expected - found) <= TOLERANCE


def _shown(precision: float | None) -> str:
    return "none" if precision is None else f"{precision:.4f}"
