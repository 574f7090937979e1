"""Several launchers share the runs of one store.

Each lists in ``root/queue/<launcher>/runs.json`` the runs that it intends to carry out, and holds
the lease of that folder while it lives. It waits for runs that other launchers carry out.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from mlbench.executors import (
    RESERVE,
    ROOM,
    Executor,
    Job,
    MatrixProgress,
    Options,
    Outcome,
    fail,
    news,
)
from mlbench.files import atomic_write
from mlbench.leases import Holder, claim, find_holder
from mlbench.text import count
from mlbench.types import Value

RUNS = "runs.json"
MOST_RESERVED = 64
"""Largest number of failures for which a launcher reserves room."""
PATIENCE = 3
"""How often a run is started if signals from outside stop it."""
STOPPED = f"a signal that this launcher did not send stopped it, {PATIENCE} times"
POLL = 2.0
"""Seconds between two checks of runs that other launchers carry out."""


class QueuedRun(Value):
    """A run that a launcher intends to carry out, and why it is missing."""

    run_id: str
    title: str
    why: str


_QUEUE = TypeAdapter(tuple[QueuedRun, ...])


@contextmanager
def announce(root: Path, runs: Sequence[QueuedRun]) -> Iterator[None]:
    """Publish the missing runs of this launcher for ``queued`` until the block ends.

    Raises:
        OSError: the store cannot be written.
    """
    for other in (root / "queue").glob("*"):
        with suppress(OSError):  # another launcher may delete it now
            if (holder := find_holder(other)) is not None and holder.stale:
                shutil.rmtree(other, ignore_errors=True)
    folder = root / "queue" / uuid4().hex[:12]
    try:
        lease = claim(folder)
        assert lease is not None
        with lease:
            with atomic_write(folder / RUNS) as part:
                part.write_bytes(_QUEUE.dump_json(tuple(runs)))
            with suppress(OSError):  # on a full disk, part of it is reserved
                (folder / RESERVE).write_bytes(bytes(ROOM * min(len(runs), MOST_RESERVED)))
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def queued(root: Path) -> Iterator[tuple[Holder, float, tuple[QueuedRun, ...]]]:
    """Each live launcher with its start time (by the file system's clock) and its runs."""
    for file in (root / "queue").glob(f"*/{RUNS}"):
        with suppress(OSError, ValidationError):  # the launcher may end now
            holder = find_holder(file.parent)
            if holder is not None and not holder.stale:
                yield holder, file.stat().st_mtime, _QUEUE.validate_json(file.read_bytes())


def carry_out_all(
    executor: Executor,
    jobs: Sequence[Job],
    options: Options,
    progress: MatrixProgress,
    say: Callable[[str], object],
) -> list[Outcome]:
    """Carry out jobs, and wait for those that other launchers carry out.

    If another launcher dies, its unfinished runs are carried out here, unless it is too late.
    ``say`` gets the text that says for whom this launcher waits.
    """
    found: dict[str, Outcome] = {}
    stops: Counter[str] = Counter()

    def carry_out(some: Sequence[Job]) -> None:
        for outcome in executor(some, options, progress):
            found[outcome.spec.run_id] = outcome
            stops[outcome.spec.run_id] += not outcome.decided and not outcome.holder

    carry_out(jobs)
    said = ""
    while left := [job for job in jobs if not (found[job.spec.run_id].decided or job.too_late)]:
        free, held = [], []
        for job in left:
            holder, run_id = find_holder(job.folder), job.spec.run_id
            if holder is not None and not holder.stale:
                held.append(str(holder))
            elif (known := news(job)) or stops[run_id] >= PATIENCE:
                found[run_id] = known[0] if known else fail(job, "killed", STOPPED)
                progress.begin(jobs.index(job) + 1, len(jobs), job.spec)
                progress.end(found[run_id])
            else:
                free.append(job)
        if free:
            carry_out(free)
        elif held:
            runs, are = count(len(held), "run"), "is" if len(held) == 1 else "are"
            whom = ", ".join(sorted(set(held)))
            text = f"{runs} {are} being carried out by another launcher ({whom}); waiting"
            if text != said:
                say(text)
            said = text
            time.sleep(POLL)
    return [found[job.spec.run_id] for job in jobs]
