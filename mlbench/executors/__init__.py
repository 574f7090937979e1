"""Who carries out the runs of a matrix: jobs, their outcomes, and the protocol of an executor.

An executor is a plugin of the entry-point group ``mlbench.executors``. It starts processes that
call ``mlbench.executors.worker``, passes their progress on, and reports what became of them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from mlbench import DISTRIBUTION
from mlbench.files import atomic_write, sweep
from mlbench.numbers import plugins_of
from mlbench.store import Store
from mlbench.types import Places, Progress, RunRecord, RunSpec, Value

log = logging.getLogger("mlbench")

STALL = 600.0
"""Seconds without progress after which a run has hung."""
MEETING = "mlbench-meeting-"
"""Prefix of the temporary folder in which the processes of a run meet."""
ROOM = 16_384
"""Bytes that a launcher reserves for a failure, so that a full disk does not hide it."""
RESERVE = "reserve"
"""The file of these bytes, in the folder of a launcher."""
TAIL = 40
"""Lines of a log that a failure quotes: the stack of a thread, which ends where training began."""


class Job(Value):
    """A run to carry out: plain data, as JSON in files and pickled between processes.

    Attributes:
        command: the command line, for the record.
        threads: of the CPU for each process; None leaves torch's default.
        stall: seconds without progress after which the run has hung.
        token: of the run's lease; a launcher whose process died gives the lease back with it
            (``leases.release(job.folder, job.token)``).
        ends: when it saves its state and stops, in seconds since 1970; None for no limit.
        takes: seconds that it is expected to take; it does not begin with less left.
        before: marks of the outcomes that the store had when the run was planned (see ``news``).
        short: of what memory an attempt ran out; this one has twice the ``grad_accumulation``.
    """

    spec: RunSpec
    places: Places
    command: str
    threads: PositiveInt | None = None
    stall: PositiveFloat = STALL
    token: str = Field(default_factory=lambda: uuid4().hex)
    ends: float | None = None
    takes: float = 0.0
    before: tuple[str, ...] = ()
    short: str = ""

    @property
    def too_late(self) -> bool:
        """True if the run must not begin any more."""
        return self.ends is not None and time.time() + self.takes > self.ends

    @property
    def folder(self) -> Path:
        """Where the run keeps its log, its checkpoints and its failure."""
        return Store(self.places.results).run_folder(self.spec.run_id)

    @property
    def log(self) -> Path:
        """What the run's processes print and log."""
        return self.folder / "log.txt"

    @property
    def failure_file(self) -> Path:
        """Why the run's last attempt failed; missing while none did."""
        return self.folder / "failure.json"


FailureKind = Literal["error", "exit", "crash", "killed", "hung"]


class Failure(Value):
    """Why a run has no record; ``runs/<id>/failure.json`` until it is tried again.

    Attributes:
        status: ``error``: an exception; ``exit``: a process ended without a result; ``crash``: a
            fault of native code; ``killed``: by somebody else, mostly because memory ran out;
            ``hung``: no progress for too long.
        reason: in one sentence.
        remedy: what to do; empty if the reason says it.
        log: the last lines of the run's log.
        ended: when, in UTC.
    """

    run_id: str
    title: str
    status: FailureKind
    reason: str
    remedy: str = ""
    log: tuple[str, ...] = ()
    ended: str
    command: str


@dataclass(frozen=True)
class Outcome:
    """The end of a run: a record (also if the loss diverged), a failure, or neither.

    A run without either was interrupted, or is carried out by another launcher.

    Attributes:
        holder: the other launcher.
        divisible: with smaller micro-batches, the run may fit into memory.
    """

    spec: RunSpec
    log: Path
    record: RunRecord | None = None
    failure: Failure | None = None
    holder: str = ""
    divisible: bool = False

    @property
    def decided(self) -> bool:
        """Whether the run has ended for good."""
        return self.record is not None or self.failure is not None

    @property
    def error(self) -> str | None:
        """Why the run has no score."""
        if self.failure is not None:
            return "; ".join(filter(None, (self.failure.reason, self.failure.remedy)))
        return None if self.record is None else self.record.error


class Options(Value):
    """What an executor is asked for; each reads what it knows.

    Attributes:
        jobs: runs at a time; locally, on each group of devices.
        devices: the devices to fill, by their numbers; empty for as many as one run needs.
        share_data: runs that share batches may be trained in one process.
        more: options of one executor, such as ``address`` of a Ray cluster.
    """

    jobs: PositiveInt = 1
    devices: tuple[int, ...] = ()
    share_data: bool = False
    more: dict[str, Any] = {}


class MatrixProgress(Protocol):
    """Progress of a whole matrix, of which several runs may be under way."""

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Run ``number`` of ``total`` begins; returns what is told of its progress."""

    def end(self, outcome: Outcome) -> None:
        """The run ended."""


class Executor(Protocol):
    """Carries out jobs; one that fails does not stop the others."""

    def __call__(
        self, jobs: Sequence[Job], options: Options, progress: MatrixProgress
    ) -> list[Outcome]:
        """Carry out jobs and return their outcomes in the same order.

        Raises:
            MlbenchError: the options do not fit this machine; nothing was started.
            KeyboardInterrupt: the user interrupted; every run that was under way has ended.
        """


def make_jobs(
    specs: Sequence[RunSpec],
    places: Places,
    command: str,
    replaces: Mapping[str, str] | None = None,
) -> list[Job]:
    """The jobs of a matrix, after a look at whether their results can be written.

    Args:
        specs: the runs that are missing.
        places: of their files.
        command: the command line, for the records.
        replaces: as in the plan; any other record has come since, and is not made again.

    Raises:
        StoreError: the folder of the results cannot be written.
    """
    Store(places.results).assert_writable()
    meetings = Path(tempfile.gettempdir()).glob(f"{MEETING}*")
    sweep([*places.results.rglob(".*.tmp"), *places.cache.rglob(".*.tmp"), *meetings])
    if places.cache_limit is not None:
        needs = tuple({spec.cached_for for spec in specs})
        places = places.model_copy(update={"cache_needs": needs})
    jobs = [Job(spec=spec, places=places, command=command) for spec in specs]
    known = replaces or {}
    return [
        job.model_copy(update={"before": (known.get(job.spec.run_id, ""), _mark(_failed(job)))})
        for job in jobs
    ]


def with_news(job: Job) -> Job:
    """The job, to be carried out whatever the store has of it."""
    known = job.before + tuple(map(_mark, news(job)))
    return job.model_copy(update={"before": known})


def news(job: Job) -> list[Outcome]:
    """The outcomes of a run that the store has got since it was planned: a failure, a record.

    Raises:
        StoreError: the record is damaged.
    """
    done = Outcome(job.spec, job.log, Store(job.places.results).find(job.spec.run_id))
    return [one for one in (_failed(job), done) if one.decided and _mark(one) not in job.before]


def _failed(job: Job) -> Outcome:
    return Outcome(job.spec, job.log, failure=read_failure(job.failure_file))


def _mark(outcome: Outcome) -> str:
    """Tells one outcome of a run from another."""
    if outcome.failure is not None:
        return outcome.failure.ended
    return outcome.record.digest if outcome.record is not None else ""


# ------------------------------------------------------------------------------------------- teams
PIXELS = {"image_size", "preprocessing", "augmentation", "mixing", "decoder"}
"""Settings that decide what batches are made of, besides their size and the epoch's selection."""


def teams(jobs: Sequence[Job], slots: int) -> list[list[tuple[int, Job]]]:
    """Jobs with their numbers, together if they see the same batches; ``slots`` parts of each."""
    found: dict[object, list[tuple[int, Job]]] = {}
    for number, job in enumerate(jobs):
        found.setdefault(_batches_of(job.spec), []).append((number, job))
    return sorted(some[i::slots] for some in found.values() for i in range(min(slots, len(some))))


def _batches_of(spec: RunSpec) -> object:
    """Equal for runs that see the same batches; no other has those of several processes."""
    if spec.processes > 1 or not spec.settings.epochs:
        return spec.run_id
    names = PIXELS | {"batch_size", "selection"}
    names |= {"backbone", "weights"} if spec.track == "probe" else set()
    rest = spec.model_dump_json(exclude={"method", "settings", "words", "graph"})
    return rest, spec.settings.model_dump_json(include=names)


# ---------------------------------------------------------------------------------------- failures
def fail(job: Job, status: FailureKind, reason: str, remedy: str = "") -> Outcome:
    """The outcome of a failed run, kept in ``job.failure_file``."""
    failure = Failure(
        run_id=job.spec.run_id,
        title=job.spec.title,
        status=status,
        reason=reason,
        remedy=remedy,
        log=last_lines(job.log),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        command=job.command,
    )
    keep_failure(job, failure)
    return Outcome(job.spec, job.log, failure=failure)


def keep_failure(job: Job, failure: Failure) -> None:
    """Write ``job.failure_file``, on a full disk into the room that launchers reserved."""
    try:
        with atomic_write(job.failure_file) as part:
            part.write_text(failure.model_dump_json(indent=1), encoding="utf-8")
    except OSError as error:
        if _give_room(job.places.results):
            keep_failure(job, failure)
        else:
            log.warning("the failure of run %s was not kept: %s", job.spec.run_id, error)


def _give_room(results: Path) -> bool:
    """Give a part of what launchers reserved back to the disk; False if nothing is left of it."""
    for reserve in (results / "queue").glob(f"*/{RESERVE}"):
        with suppress(OSError):
            if size := reserve.stat().st_size:
                os.truncate(reserve, max(size - ROOM, 0))
                return True
    return False


def suspects(spec: RunSpec) -> str:
    """The remedy for what a plugin of somebody else's may have done; empty if all are ours."""
    foreign = {p.name: None for p in plugins_of(spec) if p.distribution != DISTRIBUTION}
    return f"`mlbench check {' '.join(foreign)}` may say more" if foreign else ""


def read_failure(file: Path) -> Failure | None:
    """The failure in a file; None if there is none, or it cannot be read."""
    try:
        return Failure.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def last_lines(file: Path, limit: int = TAIL) -> tuple[str, ...]:
    """The last lines of a log that are not empty."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(file.stat().st_size - 65_536, 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple([line for line in text.splitlines() if line.strip()][-limit:])
