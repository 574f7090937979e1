"""What each test image does to a run's mAP, kept among the predictions that it follows from.

A board compares its rows image by image, and needs nothing else of their predictions: 160 KB of the
12 MB of a run of COCO size, in an archive whose members are read one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.influence import influence
from mlbench.types import MeasureError, Predictions

VERSION = 1
"""Raised when the values of equal predictions change, so that no old ones are read."""


@dataclass(frozen=True)
class Influence:
    """How much each image pulls at a run's mAP (see ``mlbench.metrics.influence``).

    Attributes:
        images: identity of test images, targets and label names; only equal ones compare.
        values: float32 [N] in percent, in the order of the sorted keys.
        mAP: of the predictions, in percent.
        version: of the way in which it was worked out.
    """

    images: str
    values: NDArray[np.float32]
    mAP: float  # noqa: N815 - the field's own spelling
    version: int = VERSION


def derive(predictions: Predictions, names: tuple[str, ...]) -> Influence:
    """Work it out; some tenths of a second for COCO.

    Args:
        predictions: N images, C labels.
        names: of the labels.

    Raises:
        MeasureError: the arrays do not fit, or nothing in them can be scored.
    """
    score, values = influence(predictions.logits, predictions.targets)
    if len(predictions.keys) != len(values):
        raise MeasureError(f"there are {len(predictions.keys)} keys for {len(values)} images")
    order = np.argsort(np.array(predictions.keys), kind="stable")
    state = hashlib.sha256("\n".join((*names, *sorted(predictions.keys))).encode())
    state.update(np.ascontiguousarray(predictions.targets[order]).tobytes())
    in_percent = (100 * values[order]).astype(np.float32)
    return Influence(state.hexdigest()[:16], in_percent, 100 * score)


def members(found: Influence) -> dict[str, NDArray[Any]]:
    """As the arrays of an archive."""
    return {
        "influence": found.values.astype("<f4", copy=False),
        "influence_of": np.array(found.images),
        "influence_mAP": np.array(found.mAP, "<f8"),
        "influence_version": np.array(found.version, "<i8"),
    }


def among(arrays: Mapping[str, NDArray[Any]]) -> Influence | None:
    """From the arrays of an archive; None from one that is older than they are.

    Raises:
        KeyError, ValueError: some of them are missing, or are none.
    """
    if "influence" not in arrays:
        return None
    return Influence(
        str(arrays["influence_of"]),
        arrays["influence"],
        float(arrays["influence_mAP"]),
        int(arrays["influence_version"]),
    )
