"""A pack that nothing speaks against, taken into a store."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlbench.packs.archive import Pack
from mlbench.packs.fields import differing
from mlbench.packs.remarks import Remark, few, finding, warning
from mlbench.store import Store
from mlbench.types import RunRecord


def compare(pack: Pack, store: Store) -> Iterator[Remark]:
    """What a store's own records have to say about a pack.

    Raises:
        StoreError: the store has this run, but it is damaged.
    """
    record, old = pack.record, store.get(pack.record.run_id)
    differences = {} if old is None else differing(old, record)
    if old is not None and differences and old.started == record.started:
        there, here = zip(*differences.values(), strict=True)
        yield finding(
            f"{store.root} holds this run, begun in the same second, with something else in "
            + few(list(differences)),
            few([f"{path} {value!r}" for path, value in zip(differences, there, strict=True)]),
            few([f"{path} {value!r}" for path, value in zip(differences, here, strict=True)]),
        )
    if pack.predicted is None or record.scores is None:
        return
    logits = pack.predicted.predictions.logits
    for other in store.records():
        # Equal scores are rare enough that predictions need not be read for any others.
        if other.scores != record.scores or other.run_id == record.run_id:
            continue
        if np.array_equal(store.predictions(other).logits, logits):
            yield warning(
                f"run {other.run_id} ({other.spec.method}) of {store.root} made the same "
                "predictions to the last bit"
            )


def add(pack: Pack, store: Store) -> str:
    """Write a pack's record and predictions to a store.

    Returns:
        What became of it, and of a record that stood there.

    Raises:
        StoreError: the store cannot be written to, or has a damaged file in this place.
    """
    record, old = pack.record, store.get(pack.record.run_id)
    if old is not None and not differing(old, record):
        return f"is in {store.root} already"
    file = store.write(record, pack.predicted.predictions if pack.predicted else None)
    if old is None:
        return f"added as {file}"
    return f"added as {file}; it supersedes the run of {_said(old)}, which is kept beside it"


def _said(record: RunRecord) -> str:
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    return f"{record.started}, {score}, commit {(record.commit or 'unknown')[:12]}"
