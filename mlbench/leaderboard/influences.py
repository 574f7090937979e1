"""What each test image does to each run's mAP, kept so that no board reads predictions twice."""

from __future__ import annotations

import hashlib
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.influence import influence
from mlbench.store import Store
from mlbench.types import MeasureError, Predictions, RunRecord, StoreError

VERSION = 1
"""Raised when the values of equal predictions change, so that no old ones are read."""
TOLERANCE = 1e-3
"""Percent that predictions may be off the record's mAP; what is beyond belongs to another run."""


@dataclass(frozen=True)
class Influence:
    """How much each image pulls at a run's mAP (see ``mlbench.metrics.influence``).

    Attributes:
        images: identity of test images, targets and label names; only equal ones compare.
        values: float32 [N] in percent, in the order of the sorted keys.
    """

    images: str
    values: NDArray[np.float32]


class Influences:
    """Of the runs of a store: read from the cache, or worked out from predictions and kept there.

    A COCO-size run takes some tenths of a second, and 160 KB of the cache. It is found again by the
    checksums of its predictions, wherever the store lies.

    Args:
        store: where the predictions are.
        cache: a folder that may be written to; one that cannot be costs time only.
    """

    def __init__(self, store: Store, cache: Path) -> None:
        self.store = store
        self.folder = cache / "influences"

    def of(self, record: RunRecord) -> Influence | None:
        """None where a run has no predictions, or none that can be read and give its score."""
        fingerprint = self.store.fingerprint(record)
        if fingerprint is None or record.scores is None:
            return None
        kept = self.folder / f"{fingerprint}-{VERSION}.npz"
        found = _read(kept)
        if found is None:
            try:
                found = _work_out(self.store.predictions(record), record.label_names)
            except (StoreError, MeasureError):
                return None
            _keep(kept, *found)
        score, result = found
        return result if abs(score - record.scores.mAP) < TOLERANCE else None


def _work_out(predictions: Predictions, names: tuple[str, ...]) -> tuple[float, Influence]:
    """MAP in percent, and the influence."""
    score, values = influence(predictions.logits, predictions.targets)
    order = np.argsort(np.array(predictions.keys))
    state = hashlib.sha256("\n".join((*names, *sorted(predictions.keys))).encode())
    state.update(np.ascontiguousarray(predictions.targets[order]).tobytes())
    in_percent = (100 * values[order]).astype(np.float32)
    return 100 * score, Influence(state.hexdigest()[:16], in_percent)


def _read(file: Path) -> tuple[float, Influence] | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images, values = str(arrays["images"]), arrays["values"]
            return float(arrays["score"]), Influence(images, values)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(file: Path, score: float, found: Influence) -> None:
    part = file.with_name(f"{file.stem}.{os.getpid()}.part.npz")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(part, score=score, images=found.images, values=found.values)
        part.replace(file)
