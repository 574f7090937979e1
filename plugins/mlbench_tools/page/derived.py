"""The numbers that the pages show of a run's predictions, computed once and cached.

The directory of a predictions file holds a checksum of each array. The cache is keyed by these
checksums, so a second build of the site decompresses nothing.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.evidence import open_arrays
from mlbench.files import read_checked, write_checked
from mlbench.store import Store
from mlbench.types import Predictions, RunRecord, StoreError, Targets, Value
from mlbench_tools.scoring.measures import Measurement, ProtocolInput
from mlbench_tools.scoring.protocols import PROTOCOLS, measure
from mlbench_tools.scoring.ranking import image_rankings

LISTED = 10
"""Images listed at either end of the ranking."""
TOP = 3
"""Labels listed as predicted."""
VERSION = "2"
"""Version of ``Derived``; raising it makes all cached values stale."""


class RankedImage(Value):
    """A test image.

    Attributes:
        precision: average precision of the ranking of its labels, in percent.
        present: its labels.
        predicted: the labels with the highest scores, best first.
    """

    key: str
    precision: float
    present: tuple[str, ...]
    predicted: tuple[str, ...]


class CalibrationBin(Value):
    """Known entries (an image and a label) whose predicted probability lies between two bounds.

    Attributes:
        low, high: the bounds in percent.
        entries: their number, at least 1.
        confidence: their mean probability in percent.
        frequency: the fraction of them that is positive, in percent.
    """

    low: float
    high: float
    entries: int
    confidence: float
    frequency: float


class Derived(Value):
    """The numbers that follow from the predictions of a run.

    Attributes:
        images: number of test images.
        positives: test images with each label [C].
        worst, best: the ends of the ranking of images by average precision, then by loss.
        protocols: name -> its values, for every protocol that is defined here.
        undefined: name -> why a protocol is not defined here.
        calibration: the bins of the protocol ``calibration`` that have entries.
    """

    images: int
    positives: tuple[int, ...]
    worst: tuple[RankedImage, ...]
    best: tuple[RankedImage, ...]
    protocols: dict[str, dict[str, float]]
    undefined: dict[str, str]
    calibration: tuple[CalibrationBin, ...]


def derive(store: Store, record: RunRecord, cache: Path) -> Derived:
    """Derive what the pages show of a run's predictions, or read it from the cache.

    Raises:
        StoreError: the predictions are missing or damaged.
        MeasureError: the predictions are not finite.
    """
    file = store.predictions_file(record)
    if not file.is_file():
        raise StoreError("There are no predictions beside the record.")
    cached = cache / f"{_key(file, record)}.checked"
    content = read_checked(cached)
    if content is not None:
        return Derived.model_validate_json(content)
    made = _derive(store.predictions(record), record)
    with suppress(OSError):  # it only saves time
        write_checked(cached, made.model_dump_json().encode())
    return made


def _key(file: Path, record: RunRecord) -> str:
    """A digest of everything that a derived value depends on."""
    versions = [f"{p.name} {p.version} {p.definition}" for p in PROTOCOLS.values()]
    with open_arrays(file, record) as archive:
        arrays = archive.directory
    parts = [VERSION, *versions, repr(record.train_positives), *arrays]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _derive(predictions: Predictions, record: RunRecord) -> Derived:
    measured, undefined = measure(ProtocolInput.of_run(predictions, record))
    calibration = measured.get("calibration")
    worst, best = _ends(predictions, record.label_names)
    return Derived(
        images=len(predictions.keys),
        positives=tuple((predictions.targets == 1).sum(axis=0).tolist()),
        worst=worst,
        best=best,
        protocols={name: dict(found.values) for name, found in measured.items()},
        undefined=undefined,
        calibration=calibration_bins(calibration) if calibration else (),
    )


def calibration_bins(found: Measurement) -> tuple[CalibrationBin, ...]:
    """The bins of a measurement of the protocol ``calibration`` that have entries."""
    names = ("entries", "confidence", "frequency")
    rows = list(zip(*(found.curves[name].tolist() for name in names), strict=True))
    return tuple(
        CalibrationBin(
            low=100 * i / len(rows),
            high=100 * (i + 1) / len(rows),
            entries=entries,
            confidence=round(confidence, 3),
            frequency=round(frequency, 3),
        )
        for i, (entries, confidence, frequency) in enumerate(rows)
        if entries
    )


def _ends(
    predictions: Predictions, names: tuple[str, ...]
) -> tuple[tuple[RankedImage, ...], tuple[RankedImage, ...]]:
    """The worst and the best images; those without a positive label have no rank."""
    logits, targets = predictions.logits, predictions.targets
    precision_N, _, _ = image_rankings(logits, targets)
    ranked = np.flatnonzero(np.isfinite(precision_N))
    # Many images have all labels in order; the one with the lowest loss is the best of them.
    order = ranked[np.lexsort((-_loss(logits, targets)[ranked], precision_N[ranked]))].tolist()

    def shown(i: int) -> RankedImage:
        return RankedImage(
            key=predictions.keys[i],
            precision=round(100 * float(precision_N[i]), 2),
            present=tuple(names[c] for c in np.flatnonzero(targets[i] == 1).tolist()),
            predicted=tuple(names[c] for c in np.argsort(-logits[i], kind="stable")[:TOP].tolist()),
        )

    return tuple(map(shown, order[:LISTED])), tuple(map(shown, order[::-1][:LISTED]))


def _loss(logits: NDArray[np.float32], targets: Targets) -> NDArray[np.float64]:
    """Binary cross entropy of each image [N], the mean over its known labels."""
    known = targets >= 0
    entropy = np.where(known, np.logaddexp(0, logits) - (targets == 1) * logits, 0)
    loss: NDArray[np.float64] = entropy.sum(1) / np.maximum(known.sum(1), 1)
    return loss
