"""Take a verified pack into a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mlbench.store import Store
from mlbench.types import RunRecord
from mlbench_tools.submit.pack_file import Pack
from mlbench_tools.submit.remarks import Remark, finding


def superseding(new: RunRecord, store: Store, supersede: bool) -> Iterator[Remark]:
    """Check that a record may take the place of the store's record of the same run, if any.

    Raises:
        StoreError: the store's record of this run is damaged.
    """
    old = store.find(new.run_id)
    if old is None or _same(old, new):
        return
    if new.began <= old.began:
        text = f"{store.root} has a record of this run that did not start earlier"
    elif old.status == "ok" and new.status != "ok":
        text = f"{store.root} has this run with a score, and the pack's diverged"
    elif not supersede:
        text = f"{store.root} has this run already; --supersede replaces its record"
    else:
        return
    yield finding(text, _described(old), _described(new))


def add(pack: Pack, store: Store) -> str:
    """Write record and predictions to a store, and note the time in the record.

    Returns:
        A sentence on the outcome.

    Raises:
        StoreError: the store cannot be written to, or its record of this run is damaged.
    """
    old = store.find(pack.record.run_id)
    if old is not None and _same(old, pack.record):
        return f"is in {store.root} already"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = pack.record.model_copy(update={"added": now})
    file = store.write(record, pack.predictions)
    if old is None:
        return f"added as {file}"
    return (
        f"added as {file}; this run of {_described(record)} supersedes that of {_described(old)}, "
        "which is kept beside it"
    )


def _same(old: RunRecord, new: RunRecord) -> bool:
    """Return whether two records are equal, whenever they were added; NaN equals NaN."""
    leaving = {"added", "digest", "predictions_sha256"}
    return old.model_dump_json(exclude=leaving) == new.model_dump_json(exclude=leaving)


def _described(record: RunRecord) -> str:
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    return f"{record.started}, {score}, commit {(record.commit or 'unknown')[:12]}"
