"""What each image does to mAP, which boards take from the predictions as it stands there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlbench.store import INFLUENCE_VERSION, derive_influence
from mlbench.types import MeasureError
from mlbench_tools.submit.case import Case
from mlbench_tools.submit.remarks import Remark, few, finding, not_checked
from mlbench_tools.submit.scores import TOLERANCE


def influence(case: Case) -> Iterator[Remark]:
    """It follows from the predictions: ranks that are built on another one are forged."""
    predicted = case.pack.predicted
    if predicted is None or predicted.influence is None:
        return
    found, test = predicted.influence, predicted.predictions
    if found.version != INFLUENCE_VERSION:
        yield not_checked(
            f"the influence of images, of version {found.version} where this mlbench has "
            f"{INFLUENCE_VERSION}"
        )
        return
    try:
        expected = derive_influence(test, predicted.names)
    except MeasureError as error:
        yield not_checked(f"the influence of images: it cannot be worked out ({error})")
        return
    if found.images != expected.images:
        text = "the influence is said to be of other images, targets or labels"
        yield finding(text, expected.images, found.images)
    if not abs(found.mAP - expected.mAP) <= TOLERANCE:
        yield finding("the influence is of another mAP", expected.mAP, found.mAP)
    if found.values.shape != expected.values.shape:
        text = "the influence is not one number an image"
        yield finding(text, len(expected.values), len(found.values))
        return
    close = np.isclose(found.values, expected.values, rtol=1e-4, atol=1e-7)
    if not close.all():
        keys, rows = sorted(test.keys), np.flatnonzero(~close)
        text = f"the influence of images that the predictions do not give: {len(rows)}"
        there, here = (
            few([f"{keys[row]} {one.values[row]:.6f}" for row in rows]) for one in (expected, found)
        )
        yield finding(text, there, here)
