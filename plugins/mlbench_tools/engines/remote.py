"""The process that Ray and Slurm start on a node; the launcher follows it through the store.

    torchrun --nproc-per-node 2 -m mlbench_tools.engines.remote JOB.json

carries out one run, a ``mlbench.executors.Job``, in processes that somebody else starts.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mlbench.cli.console import thread_count
from mlbench.engine import distributed
from mlbench.engine.distributed import World
from mlbench.engine.signals import EXIT_INTERRUPTED, stoppable
from mlbench.executors import Job, MatrixProgress, Options, Outcome, fail, news
from mlbench.executors.local import execute
from mlbench.executors.run_status import INTERVAL, STATUS, RunStatus
from mlbench.executors.worker import Events, carry_out
from mlbench.leases import find_holder
from mlbench.types import Progress, RunSpec

WINDOW = 100
"""Number of waiting runs that one look checks."""
POLL = 1.0
"""Seconds between two looks at a lease."""


class Unwatched:
    """The progress of a matrix that is shown nowhere: the launcher reads its status files."""

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """A run begins."""
        return Events(World(), lambda *_: None)

    def end(self, outcome: Outcome) -> None:
        """A run ended."""


def carry_out_here(job: Job) -> Outcome:
    """Carry out a run on this node, on the devices that the engine gave to this process."""
    job = with_workers(job)
    await_former(job)
    numbers = tuple(range(job.spec.processes)) if job.places.device == "cuda" else ()
    return execute([job], Options(devices=numbers), Unwatched())[0]


def with_workers(job: Job) -> Job:
    """The job with the decoding threads that suit this node, unless their number was asked for."""
    workers = job.places.workers or thread_count()
    return job.model_copy(update={"places": job.places.model_copy(update={"workers": workers})})


def await_former(job: Job) -> None:
    """Wait until the lease of an earlier attempt at this job is stale: it may still be alive."""
    while (holder := find_holder(job.folder)) and holder.token == job.token and not holder.stale:
        time.sleep(POLL)


def outcome_without_answer(job: Job, reason: str, remedy: str = "") -> Outcome:
    """The outcome in the store of a run whose process gave no answer; else a failure."""
    found = news(job)
    return found[0] if found else fail(job, "killed", reason, remedy)


class Follower:
    """Shows the progress of a matrix's runs on other machines."""

    def __init__(self, jobs: Sequence[Job], progress: MatrixProgress) -> None:
        self.jobs, self.progress = jobs, progress
        self._waiting = deque(range(len(jobs)))
        self._shown: dict[int, Progress] = {}
        self._last: dict[int, RunStatus] = {}
        self._looked = -INTERVAL

    def look(self) -> None:
        """Show what is new, every few seconds; check some of the waiting runs at a time."""
        if time.monotonic() < self._looked + INTERVAL:
            return
        self._looked = time.monotonic()
        for _ in range(min(WINDOW, len(self._waiting))):
            number = self._waiting.popleft()
            holder = find_holder(self.jobs[number].folder)
            if holder is not None and holder.token == self.jobs[number].token:
                self._begin(number)
            else:
                self._waiting.append(number)
        for number, shown in self._shown.items():
            before = self._last.get(number)
            status = RunStatus.read(self.jobs[number].folder / STATUS)
            if status is not None and status != before:
                self._last[number] = status
                _show(status, before, shown)

    def end(self, number: int, outcome: Outcome) -> None:
        """A run has ended."""
        if number in self._waiting:
            self._waiting.remove(number)
            self._begin(number)
        del self._shown[number]
        self.progress.end(outcome)

    def _begin(self, number: int) -> None:
        total, spec = len(self.jobs), self.jobs[number].spec
        self._shown[number] = self.progress.begin(number + 1, total, spec)


def _show(now: RunStatus, before: RunStatus | None, shown: Progress) -> None:
    if before is None or now.phase != before.phase:
        shown.phase(now.phase)
    if now.epoch and now.phase == "training":
        steps = now.total // now.epochs
        loss = math.nan if now.loss is None else now.loss
        done = now.done - (now.epoch - 1) * steps
        shown.step(now.epoch - 1, done, steps, loss, now.images_per_second)
    elif now.total:
        shown.count(now.done, now.total)


def main() -> int:
    """Carry out the job of a file as one process of its run; return the exit code."""
    job = with_workers(Job.model_validate_json(Path(sys.argv[1]).read_bytes()))
    world = distributed.join(job.places.device, job.stall)
    with stoppable():
        outcome = carry_out(job, world, Events(world, lambda *_: None))
    if outcome.error is not None:
        sys.stderr.write(f"{job.spec.title}: {outcome.error} (log: {outcome.log})\n")
    if not outcome.decided:
        return EXIT_INTERRUPTED
    return int(outcome.error is not None)


if __name__ == "__main__":
    sys.exit(main())
