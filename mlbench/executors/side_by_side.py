"""Train several runs on one stream of batches in one process; results are as of single runs."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from mlbench.data.loader import Batch
from mlbench.engine.distributed import World
from mlbench.engine.model import deterministic
from mlbench.engine.resume import random_states, set_random_states
from mlbench.engine.signals import STOP, stoppable
from mlbench.engine.train import Steps, Wanted
from mlbench.executors import Job, Outcome, log
from mlbench.executors.local import open_log
from mlbench.executors.worker import Events, carry_out_in_steps
from mlbench.types import Progress


def run_team(jobs: Sequence[Job], tell: Callable[..., None]) -> list[Outcome]:
    """``carry_out_together``, in a process of ``mlbench.executors.forking``."""
    with stoppable():
        shown = [Events(World(), partial(tell, "of", i)) for i in range(len(jobs))]
        return carry_out_together(jobs, shown, [open_log(job.log) for job in jobs])


def carry_out_together(
    jobs: Sequence[Job], shown: Sequence[Progress], outputs: Sequence[int] = ()
) -> list[Outcome]:
    """Carry out jobs that see the same batches in turns in this process; return their outcomes.

    Each job has a progress receiver, and may have a descriptor for its output and log.
    """
    device, beside = torch.device(jobs[0].places.device), len(jobs) - 1
    members = [
        _Member(carry_out_in_steps(job, World(), one, beside), device, output)
        for job, one, output in itertools.zip_longest(jobs, shown, outputs)
    ]
    with deterministic(jobs[0].places.deterministic):  # else the first run to end resets it
        for one in members:
            if not STOP.asked:
                one.go_on()
        while waiting := [one for one in members if one.wanted]:
            _go_through_epoch(waiting)
    undone = [Outcome(job.spec, job.log) for job in jobs]
    return [one.outcome or other for one, other in zip(members, undone, strict=True)]


def _go_through_epoch(members: Sequence[_Member]) -> None:
    """Train all runs for an epoch, step by step; runs past their last epoch go first."""
    streams: dict[object, list[tuple[Wanted, _Member]]] = {}
    for one in members:
        if one.wanted is not None:
            streams.setdefault(one.wanted.key, []).append((one.wanted, one))
    for same in streams.values():
        for (_, one), feed in zip(same, itertools.tee(_found(same[0][0]), len(same)), strict=True):
            one.feed = map(_take, feed)
    for one in sorted(members, key=lambda one: one.wanted is not None and bool(one.wanted.order)):
        one.go_on()
    while under_way := [one for one in members if not (one.wanted or one.outcome)]:
        for one in under_way:
            one.go_on()


def _found(wanted: Wanted) -> Iterator[Batch | Exception]:
    """The batches; instead of raising an error, yield it, so that every run raises it."""
    try:
        yield from wanted.batches()
    except Exception as error:
        yield error


def _take(found: Batch | Exception) -> Batch:
    """The batch with its own copy of the targets, which a loss may change; raises an error."""
    if isinstance(found, Exception):
        raise found
    return found._replace(targets=found.targets.clone())


@dataclass(eq=False)
class _Member:
    """One of several runs in this process, with its random states, log handlers and output.

    Attributes:
        wanted: the epoch for which the run waits; None if it does not wait.
        feed: the batches to send to the run next.
    """

    steps: Steps[Outcome]
    device: torch.device
    output: int | None
    wanted: Wanted | None = None
    feed: Iterator[Batch] | None = None
    outcome: Outcome | None = None
    random: dict[str, Any] = field(default_factory=dict)
    logs: list[logging.Handler] = field(default_factory=list)

    def go_on(self) -> None:
        """Resume the run until it yields or ends."""
        if self.output is not None:
            os.dup2(self.output, 1)
            os.dup2(self.output, 2)
        if self.random:
            set_random_states(self.random, self.device)
        others, log.handlers = log.handlers, [*log.handlers, *self.logs]
        feed, self.feed, self.wanted = self.feed, None, None
        try:
            self.wanted = self.steps.send(feed)
        except StopIteration as end:
            self.outcome = end.value
        finally:
            self.logs = [one for one in log.handlers if one not in others]
            log.handlers = others
            self.random = random_states(self.device)
