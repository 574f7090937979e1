"""Carry out runs on this machine, each in one process or more."""

from __future__ import annotations

import math
import os
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from mlbench import leases
from mlbench.executors import (
    MEETING,
    Job,
    MatrixProgress,
    Options,
    Outcome,
    fail,
    keep_failure,
    log,
    news,
    suspects,
    teams,
    with_news,
)
from mlbench.executors.forking import (
    Child,
    Death,
    describe_end,
    device_groups,
    end_hung,
    fork,
    free_memory,
    showing,
)
from mlbench.types import MlbenchError, Progress

BLAME = 0.5
"""Seconds from the first failure of a rank until the others are ended: a rank that died silently is
noticed after those that lost their connection to it."""
PAUSE = 10.0
"""Seconds after which the memory of devices is asked for again."""
REMEDIES = {
    "killed": "if memory ran out: fewer --jobs, --set grad_accumulation=2, or more memory",
    "hung": "the stacks of its threads are in the log; if it was at work, give a longer --stall",
}


def execute(jobs: Sequence[Job], options: Options, progress: MatrixProgress) -> list[Outcome]:
    """Carry out jobs (see ``mlbench.executors.Executor``).

    Ctrl-C asks the runs to stop and waits for them; a second Ctrl-C ends them at once.
    """
    matrix = _Matrix(jobs, options, progress)
    try:
        matrix.go_on()
    except KeyboardInterrupt:
        log.warning("stopping the runs; Ctrl-C again ends them at once")
        matrix.waiting.clear()
        matrix.signal(signal.SIGTERM)
        matrix.go_on()
        raise
    finally:
        matrix.waiting.clear()
        matrix.signal(signal.SIGKILL)
        matrix.go_on()  # gives leases back
    return matrix.outcomes


@dataclass
class _Attempt:
    """One run in progress, or several runs in one process.

    Attributes:
        members: the jobs with their numbers.
        group: position of the group of devices.
        shown: progress receivers, one per member.
        children: the processes, by rank.
        meeting: temporary folder of the process group.
        deadline: time after which the attempt has hung, if there is no progress before.
        outcomes: rank -> time and kind of its end.
        together: outcome of each member.
        failed_at: time of the first failure of a rank.
        ending: True once the remaining ranks were killed.
        stopped: True once the attempt was asked to stop.
        stepped: True once it told a step of training; its memory is taken then.
        beside: True if another attempt was on its devices at the same time.
    """

    members: list[tuple[int, Job]]
    group: int
    shown: list[Progress]
    children: list[Child]
    meeting: Path
    deadline: float
    outcomes: dict[int, tuple[float, Outcome | Death]] = field(default_factory=dict)
    together: list[Outcome] = field(default_factory=list)
    failed_at: float | None = None
    ending: bool = False
    hung: bool = False
    stopped: bool = False
    stepped: bool = False
    beside: bool = False

    @property
    def job(self) -> Job:
        """The first member's job."""
        return self.members[0][1]

    def listen(self) -> None:
        """Process the messages and the ends of the processes."""
        for rank, child in enumerate(self.children):
            for message in child.receive():
                self.deadline = time.monotonic() + self.job.stall
                with suppress(OSError):
                    os.utime(self.meeting)  # so that ``files.sweep`` keeps the folder
                self._hear(rank, *message)
            if child.ended and rank not in self.outcomes:
                when = math.inf if self.ending else 0.0
                self.outcomes[rank] = (when, describe_end(child.status))
        failed = any(not isinstance(o, Outcome) or o.failure for _, o in self.outcomes.values())
        if failed and self.failed_at is None:
            self.failed_at = time.monotonic()

    def _hear(self, rank: int, kind: str, *values: Any) -> None:
        self.stepped |= "step" in (kind, *values[1:2])  # also one of several members
        if kind == "answer":
            self.together = values[0] if isinstance(values[0], list) else [values[0]]
            self.outcomes[rank] = (values[1], self.together[0])
        elif kind == "raised":
            error = values[0]
            named = "" if isinstance(error, MlbenchError) else f"{type(error).__name__}: "
            self.outcomes[rank] = (values[1], Death("error", f"{named}{error}"))
        elif kind == "of":  # a message of one of several members
            getattr(self.shown[values[0]], values[1])(*values[2:])
        elif rank == 0:
            getattr(self.shown[0], kind)(*values)

    def watch(self) -> None:
        """End the processes if there is no progress, or a rank failed."""
        now = time.monotonic()
        if now > self.deadline and not self.hung and not self.over:
            self.hung = True
            end_hung(self.children)
        if self.failed_at is not None and now > self.failed_at + BLAME and not self.over:
            self.ending = True
            self.signal(signal.SIGKILL)

    @property
    def over(self) -> bool:
        """True if all processes have ended."""
        return all(child.ended for child in self.children)

    def signal(self, number: int) -> None:
        """Send a signal to all processes."""
        for child in self.children:
            child.signal(number)

    def close(self) -> list[Outcome | Job]:
        """The outcome of each member after the end; its job if it must be repeated alone."""
        for child in self.children:
            child.close()
        shutil.rmtree(self.meeting, ignore_errors=True)
        for _, job in self.members:
            with suppress(OSError):
                leases.release(job.folder, job.token)
        if len(self.members) == 1:
            return [self._close_one()]
        ends = self.together or [
            next(iter(news(job)), Outcome(job.spec, job.log)) for _, job in self.members
        ]
        dropped = [one.failure or not (self.together or one.record) for one in ends]
        return [
            with_news(job) if drop and not self.stopped else one
            for (_, job), one, drop in zip(self.members, ends, dropped, strict=True)
        ]

    def _close_one(self) -> Outcome | Job:
        _, leader = self.outcomes[0]
        if isinstance(leader, Outcome) and (leader.record is not None or leader.holder):
            return leader
        if self.stopped:
            return Outcome(self.job.spec, self.job.log)
        if done := [one for one in news(self.job) if one.record is not None]:
            return done[0]  # it died after it had written its record
        if self.hung:
            reason = f"no progress for {self.job.stall:g} s"
            return fail(self.job, "hung", reason, REMEDIES["hung"])
        blamed = self._blame()
        if blamed.starved and self.beside:
            return with_news(self.job, alone=True)
        if blamed.failure is not None and blamed.divisible:
            return with_news(self.job, short=blamed.failure.reason.partition(";")[0])
        return blamed

    def _blame(self) -> Outcome:
        """The outcome of the rank that failed or stopped first; silent deaths precede answers."""
        job = self.job
        ends = [
            (ended, rank, found)
            for rank, (ended, found) in self.outcomes.items()
            if isinstance(found, Death) or found.record is None
        ]
        _, rank, found = min(ends, key=lambda one: one[:2])
        if isinstance(found, Outcome):
            if found.failure is not None:  # else it was interrupted, or another launcher has it
                keep_failure(job, found.failure)
            return found
        where = f"rank {rank}: " if job.spec.processes > 1 else ""
        remedy = REMEDIES.get(found.kind) or suspects(job.spec)
        return fail(job, found.kind, where + found.reason, remedy)


class _Matrix:
    """The jobs of a matrix: waiting, running, and done.

    Attributes:
        waiting: teams of numbered jobs.
        groups: groups of devices, one run each; an empty group is the CPU.
        need: the most MiB that a run was seen to take on a device.
        others: device -> MiB in use there before a run of ours began.
    """

    def __init__(self, jobs: Sequence[Job], options: Options, progress: MatrixProgress) -> None:
        self.jobs, self.options, self.progress = jobs, options, progress
        self.running: list[_Attempt] = []
        self.outcomes = [Outcome(job.spec, job.log) for job in jobs]
        self.groups = device_groups(options.devices, max(job.spec.processes for job in jobs))
        self.need, self.others = 0.0, dict[str, int]()
        self.asked: object = None
        self.memory: dict[str, tuple[int, int]] = {}
        self.shown: dict[int, Progress] = {}
        slots = options.jobs * len(self.groups)
        alone = [[one] for one in enumerate(jobs)]
        self.waiting = deque(teams(jobs, slots) if options.share_data else alone)

    def go_on(self) -> None:
        """Carry out the remaining jobs; a KeyboardInterrupt leaves started runs running."""
        while self.waiting or self.running:
            while self.waiting and (group := self._free_group()) is not None:
                started = self._start(self.waiting.popleft(), group)
                for one in self.running:
                    if one.group == group:
                        one.beside = started.beside = True
                self.running.append(started)
            children = [child for attempt in self.running for child in attempt.children]
            wait([one for child in children for one in child.waitables], timeout=0.5)
            for attempt in self.running:
                attempt.listen()
                attempt.watch()
            for attempt in [attempt for attempt in self.running if attempt.over]:
                self.running.remove(attempt)
                for (number, job), outcome in zip(attempt.members, attempt.close(), strict=True):
                    if isinstance(outcome, Job):
                        why = outcome.short or "failed beside others"
                        log.warning("%s: %s; it is repeated", job.spec.title, why)
                        self.waiting.append([(number, outcome)])
                    else:
                        self.outcomes[number] = outcome
                        self.progress.end(outcome)

    def signal(self, number: int) -> None:
        """Send a signal to all running attempts."""
        for attempt in self.running:
            attempt.stopped = True
            attempt.signal(number)

    def _start(self, team: list[tuple[int, Job]], group: int) -> _Attempt:
        devices, (_, job) = self.groups[group], team[0]
        for number, one in team:
            if number not in self.shown:  # not if it is repeated
                self.shown[number] = self.progress.begin(number + 1, len(self.jobs), one.spec)
        shown = [self.shown[number] for number, _ in team]
        meeting = Path(tempfile.mkdtemp(prefix=MEETING))
        shared = {"MLBENCH_RENDEZVOUS": (meeting / "store").as_uri(), **showing(devices)}
        alone = "mlbench.executors.worker:run_forked", job
        beside = "mlbench.executors.side_by_side:run_team", [one for _, one in team]
        function, what = alone if len(team) == 1 else beside
        output = open_log(job.log)
        children = []
        for rank in range(job.spec.processes):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": job.spec.processes}
            variables = shared | {name: str(value) for name, value in ranks.items()}
            children.append(fork(function, (what,), output, variables))
        os.close(output)
        return _Attempt(team, group, shown, children, meeting, time.monotonic() + job.stall)

    def _free_group(self) -> int | None:
        """The group with the fewest runs, of those that have room for another."""
        here = [[one for one in self.running if one.group == i] for i in range(len(self.groups))]
        order = sorted(range(len(here)), key=lambda i: len(here[i]))
        return next((i for i in order if self._has_room(self.groups[i], here[i])), None)

    def _has_room(self, devices: Sequence[str], beside: Sequence[_Attempt]) -> bool:
        """True if the next run may begin beside those that are on these devices.

        On a GPU each of them has told a step by then, so that its memory is known.
        """
        jobs = [self.waiting[0][0][1], *(one.job for one in beside)]
        if beside and (len(jobs) > self.options.jobs or any(job.alone for job in jobs)):
            return False
        if self.options.jobs == 1 or not devices:
            return True
        if not all(one.stepped for one in beside):
            return False
        memory = self._free_memory()
        known = {device: memory[device] for device in devices if device in memory}
        used = {device: total - free for device, (free, total) in known.items()}
        if not beside:
            self.others |= used
            return True
        for device, taken in used.items():
            self.need = max(self.need, (taken - self.others.get(device, 0)) / len(beside))
        return all(free >= self.need for free, _ in known.values())

    def _free_memory(self) -> dict[str, tuple[int, int]]:
        """``free_memory``, asked anew after ``PAUSE`` or if a run began, told a step, or ended."""
        now = time.monotonic() // PAUSE, [(one.meeting, one.stepped) for one in self.running]
        if now != self.asked:
            self.asked, self.memory = now, free_memory()
        return self.memory


def open_log(file: Path) -> int:
    """Open a log for appending; returns a descriptor, of the null device if that fails."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        log.warning("%s cannot be written (%s); this run has no log", file, error.strerror)
        return os.open(os.devnull, os.O_WRONLY)
