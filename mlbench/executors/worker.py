"""Carry out one run in this process; executors call this."""

from __future__ import annotations

import logging
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import torch

from mlbench.engine import distributed
from mlbench.engine.cost import keep_freed_memory
from mlbench.engine.distributed import World
from mlbench.engine.resume import discard
from mlbench.engine.signals import stoppable
from mlbench.engine.train import Steps, finish
from mlbench.executors import FailureKind, Job, Outcome, fail, news, suspects
from mlbench.executors.run_status import StatusFile
from mlbench.leases import Lease, LeaseLostError, claim, find_holder
from mlbench.numbers import plugins_of
from mlbench.one_run import run
from mlbench.registry import line_in
from mlbench.store import Store
from mlbench.types import BatchMemoryError, EpochLog, Interrupted, MlbenchError, Progress

log = logging.getLogger("mlbench")

EVERY = 0.1
"""Seconds between two messages about steps and counts."""


def carry_out(job: Job, world: World, progress: Progress) -> Outcome:
    """Carry out a job and write its record, or its failure, to the store.

    Nothing is done if another launcher carries out the run, or if the run got an outcome since it
    was planned; that outcome is returned. All processes of the run call this; the kind of outcome
    is the same on all, unless only one fails.
    """
    try:
        return finish(carry_out_in_steps(job, world, progress))
    except Interrupted:  # before the run was claimed, or after its end
        return Outcome(job.spec, job.log)


def carry_out_in_steps(
    job: Job, world: World, progress: Progress, neighbours: int = 0
) -> Steps[Outcome]:
    """Generator form of ``carry_out``, with ``neighbours`` other runs in this process."""
    lease: Lease | None = None

    def begin() -> Outcome | None:
        """Claim the run; return an outcome if there is nothing to do."""
        nonlocal lease
        if job.too_late:
            return Outcome(job.spec, job.log)
        try:
            lease = claim(job.folder, job.token)
            if lease is None:
                holder = find_holder(job.folder)
                return Outcome(job.spec, job.log, holder=str(holder or "another process"))
            return next(iter(news(job)), None)
        except (OSError, MlbenchError) as error:
            return fail(job, "error", f"run {job.spec.run_id} cannot be claimed: {error}")

    try:
        if (found := world.ask_leader(begin)) is not None:
            return found
        shown = StatusFile(job, lease, progress) if lease is not None else progress
        return (yield from _attempt(job, world, shown, lease, neighbours))
    finally:
        if lease is not None:
            lease.release()


def _attempt(
    job: Job, world: World, progress: Progress, lease: Lease | None, neighbours: int
) -> Steps[Outcome]:
    """Carry out a claimed run; only the leader has the lease."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    keep_freed_memory(True)
    if job.ends is not None:
        signal.setitimer(signal.ITIMER_REAL, max(job.ends - time.time(), 1e-3))
    random.seed(job.spec.seed)
    np.random.seed(job.spec.seed % 2**32)  # noqa: NPY002 - what a plugin may draw from
    with _logging(world):
        if world.leads:
            with suppress(OSError):
                job.failure_file.unlink(missing_ok=True)
        try:
            record, predictions = yield from run(
                job.spec, job.places, world, progress, job.command, neighbours, short=job.short
            )
            if lease is not None:
                lease.check()
                store = Store(job.places.results)
                store.write(record, predictions)
                discard(job.folder)
                if job.places.keep == "best":
                    store.prune(record)
        except (Interrupted, LeaseLostError) as end:
            log.warning("%s", end)
            return Outcome(job.spec, job.log)
        except MlbenchError as error:
            log.error("%s", traceback.format_exc())
            starved = isinstance(error, BatchMemoryError)
            divisible = isinstance(error, BatchMemoryError) and error.divisible and not job.short
            failed = fail(job, "error", str(error))
            return replace(failed, starved=starved, divisible=divisible)
        except (Exception, SystemExit) as error:
            log.error("%s", traceback.format_exc())
            kind: FailureKind = "exit" if isinstance(error, SystemExit) else "error"
            line = line_in(plugins_of(job.spec), error)
            reason = f"{type(error).__name__}: {error}{line}"
            return fail(job, kind, reason, suspects(job.spec))
    return Outcome(job.spec, job.log, record)


def run_forked(job: Job, tell: Callable[..., None]) -> Outcome:
    """``carry_out`` in a process of ``mlbench.executors.forking``, as one rank of its run."""
    world = distributed.join(job.places.device, job.stall)
    with stoppable():
        return carry_out(job, world, Events(world, tell))


@contextmanager
def _logging(world: World) -> Iterator[None]:
    """Write mlbench's log to stderr, which the parent process keeps in ``job.log``."""
    handler = logging.StreamHandler()
    rank = f" rank {world.rank}" if world.size > 1 else ""
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s{rank} %(levelname)s %(name)s: %(message)s")
    )
    handler.setLevel(logging.INFO if world.leads else logging.WARNING)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class Events:
    """Sends progress as messages such as ``("step", epoch, step, ...)``.

    The other processes of the run take stages and counts as a sign of life.
    """

    def __init__(self, world: World, tell: Callable[..., object]) -> None:
        self._world, self._tell = world, tell
        self._sent: dict[str, float] = {}

    def phase(self, text: str) -> None:
        """A phase begins."""
        self._world.beat()
        self._tell("phase", text)

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` images are done."""
        if self._due("count"):
            self._world.beat()
            self._tell("count", done, total)

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """A step is done."""
        if self._due("step"):
            self._tell("step", epoch, step, steps, loss, speed)

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""
        self._tell("epoch", log)

    def _due(self, event: str) -> bool:
        now = time.monotonic()
        if due := now > self._sent.get(event, -EVERY) + EVERY:
            self._sent[event] = now
        return due
