"""A pack that nothing speaks against, taken into a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mlbench.store import Store
from mlbench.types import RunRecord
from mlbench_tools.submit.archive import Pack
from mlbench_tools.submit.copies import Seen, copies
from mlbench_tools.submit.fields import differing
from mlbench_tools.submit.remarks import Remark, few, finding
from mlbench_tools.submit.seeds import seeds

FLAG = "--supersede"
"""What a maintainer says who wants a pack to take the place of a record."""


def compare(pack: Pack, store: Store, supersede: bool = False) -> Iterator[Remark]:
    """What a store's own records have to say about a pack.

    Args:
        pack: what is to be taken in.
        store: which is to take it in.
        supersede: whether it may take the place of a record of the same run.

    Raises:
        StoreError: the store has this run, but it is damaged.
    """
    old = store.get(pack.record.run_id)
    if old is not None:
        yield from _superseding(pack.record, old, store, supersede)
    where, records = str(store.root), store.records()
    yield from copies(pack, (Seen(where, one, store.predictions) for one in records))
    yield from seeds(pack.record, records)


def _superseding(new: RunRecord, old: RunRecord, store: Store, supersede: bool) -> Iterator[Remark]:
    differences = _differing(old, new)
    if not differences:
        return
    if old.began == new.began:
        there, here = zip(*differences.values(), strict=True)
        yield finding(
            f"{store.root} holds this run, begun in the same second, with something else in "
            + few(list(differences)),
            few([f"{path} {value!r}" for path, value in zip(differences, there, strict=True)]),
            few([f"{path} {value!r}" for path, value in zip(differences, here, strict=True)]),
        )
    elif new.began < old.began:
        text = f"{store.root} holds a newer record of this run, which an older one never supersedes"
        yield finding(text, _said(old), _said(new))
    elif old.status == "ok" and new.status != "ok":
        text = f"{store.root} holds this run with a score, which one that diverged never supersedes"
        yield finding(text, _said(old), _said(new))
    elif not supersede:
        text = f"{store.root} holds this run already; {FLAG} puts this one in its place"
        yield finding(text, _said(old), _said(new))


def add(pack: Pack, store: Store) -> str:
    """Write a pack's record and predictions to a store, with the time at which it took them.

    Returns:
        What became of it, and of a record that stood there.

    Raises:
        StoreError: the store cannot be written to, or has a damaged file in this place.
    """
    old = store.get(pack.record.run_id)
    if old is not None and not _differing(old, pack.record):
        return f"is in {store.root} already"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = pack.record.model_copy(update={"added": now})
    file = store.write(record, pack.predicted.predictions if pack.predicted else None)
    if old is None:
        return f"added as {file}"
    return (
        f"added as {file}; this run of {_said(record)} supersedes that of {_said(old)}, which is "
        "kept beside it"
    )


def _differing(old: RunRecord, new: RunRecord) -> dict[str, tuple[object, object]]:
    """As ``differing``, whenever either was taken into a store."""
    return differing(*(record.model_copy(update={"added": ""}) for record in (old, new)))


def _said(record: RunRecord) -> str:
    score = f"mAP {record.scores.mAP:.2f}" if record.scores else record.status
    return f"{record.started}, {score}, commit {(record.commit or 'unknown')[:12]}"
