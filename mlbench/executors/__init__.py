"""Jobs, their outcomes, and the protocol of an executor, which carries out the runs of a matrix.

An executor is a plugin of the entry-point group ``mlbench.executors``. It starts processes that
call ``mlbench.executors.worker``, passes their progress on, and reports their outcomes.
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
from typing import Any, Literal, Protocol, Self
from uuid import uuid4

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from mlbench import DISTRIBUTION
from mlbench.files import atomic_write, sweep
from mlbench.numbers import plugins_of
from mlbench.store import Store
from mlbench.text import in_utf8
from mlbench.types import Places, Progress, RunRecord, RunSpec, Value

log = logging.getLogger("mlbench")

STALL = 600.0
"""Seconds without progress after which a run has hung."""
MEETING = "mlbench-meeting-"
"""Prefix of the temporary folder through which the processes of a run find each other."""
ROOM = 16_384
"""Bytes that a launcher reserves per failure, so that it can be written to a full disk."""
RESERVE = "reserve"
"""Name of the file with the reserved bytes, in the folder of a launcher."""
TAIL = 40
"""Lines of a log that a failure quotes; enough for the stack of a thread."""


class Job(Value):
    """A run to carry out: plain data, as JSON in files and pickled between processes.

    Attributes:
        command: the command line, for the record.
        threads: CPU threads of each process; None leaves torch's default.
        stall: seconds without progress after which the run has hung.
        token: token of the run's lease; if the process died, the launcher releases the lease with
            it (``leases.release(job.folder, job.token)``).
        ends: when the run saves its state and stops, in seconds since 1970; None for no limit.
        takes: expected seconds of the run; it does not begin if less time is left.
        before: marks of the outcomes that the store had when the run was planned (see ``news``).
        short: why the first attempt ran out of memory; this one doubles ``grad_accumulation``.
        alone: no other run may be on its devices, since it ran out of memory beside others.
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
    alone: bool = False

    @property
    def too_late(self) -> bool:
        """True if the run must not begin any more."""
        return self.ends is not None and time.time() + self.takes > self.ends

    @property
    def folder(self) -> Path:
        """The folder of the run's log, state, checkpoint and failure."""
        return Store(self.places.results).run_folder(self.spec.run_id)

    @property
    def log(self) -> Path:
        """The file of what the run's processes print and log."""
        return self.folder / "log.txt"

    @property
    def failure_file(self) -> Path:
        """The file that says why the last attempt failed; missing if it did not."""
        return self.folder / "failure.json"


class Kept(Value):
    """What a run keeps as JSON in its folder, for every process that reads the store."""

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The value in a file; None if the file is missing or cannot be read."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None


FailureKind = Literal["error", "exit", "crash", "killed", "hung"]


class Failure(Kept):
    """Why a run has no record; ``runs/<id>/failure.json`` until it is tried again.

    Attributes:
        status: ``error``: an exception; ``exit``: a process ended without a result; ``crash``: a
            fault in native code; ``killed``: a signal from outside, mostly because memory ran out;
            ``hung``: no progress for too long.
        reason: the cause in one sentence.
        remedy: what to do; empty if the reason says it.
        log: the last lines of the run's log.
        ended: time of the failure, in UTC.
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

    A run with neither was interrupted, or is carried out by another launcher.

    Attributes:
        holder: the other launcher; empty if there is none.
        starved: True if its device lacked memory.
        divisible: True if smaller micro-batches may fit into memory.
    """

    spec: RunSpec
    log: Path
    record: RunRecord | None = None
    failure: Failure | None = None
    holder: str = ""
    starved: bool = False
    divisible: bool = False

    @property
    def decided(self) -> bool:
        """True if the run has a record or a failure."""
        return self.record is not None or self.failure is not None

    @property
    def error(self) -> str | None:
        """The reason why the run has no score; None if it has one."""
        if self.failure is not None:
            return "; ".join(filter(None, (self.failure.reason, self.failure.remedy)))
        return None if self.record is None else self.record.error


class Options(Value):
    """Options of all executors; each executor reads those that it supports.

    Attributes:
        jobs: number of simultaneous runs; locally, per group of devices.
        devices: numbers of the devices to use; empty for as many as one run needs.
        share_data: train runs that share batches in one process.
        more: options of one executor, such as ``address`` of a Ray cluster.
    """

    jobs: PositiveInt = 1
    devices: tuple[int, ...] = ()
    share_data: bool = False
    more: dict[str, Any] = {}


class MatrixProgress(Protocol):
    """Receives the progress of a matrix, in which several runs may be in progress."""

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Run ``number`` of ``total`` begins; returns the receiver of its progress."""

    def end(self, outcome: Outcome) -> None:
        """A run ended."""


class Executor(Protocol):
    """Carries out jobs; one that fails does not stop the others."""

    def __call__(
        self, jobs: Sequence[Job], options: Options, progress: MatrixProgress
    ) -> list[Outcome]:
        """Carry out jobs and return their outcomes in the same order.

        Raises:
            MlbenchError: the options do not fit this machine; nothing was started.
            KeyboardInterrupt: the user interrupted; every started run has ended.
        """


def make_jobs(
    specs: Sequence[RunSpec],
    places: Places,
    command: str,
    replaces: Mapping[str, str] | None = None,
) -> list[Job]:
    """Make the jobs of a matrix; check that the results can be written, delete leftover files.

    Args:
        specs: the missing runs.
        places: where the runs find and leave files.
        command: the command line, for the records.
        replaces: run id -> digest of the record to replace, as in the plan; any other record is
            newer than the plan, and its run is not repeated.

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


def with_news(job: Job, **changes: object) -> Job:
    """A copy of the job, with changes, that is carried out whatever outcomes the store has."""
    known = job.before + tuple(map(_mark, news(job)))
    return job.model_copy(update={"before": known, **changes})


def news(job: Job) -> list[Outcome]:
    """The outcomes that a run has got in the store since it was planned: a failure, a record.

    Raises:
        StoreError: the record is damaged.
    """
    done = Outcome(job.spec, job.log, Store(job.places.results).find(job.spec.run_id))
    return [one for one in (_failed(job), done) if one.decided and _mark(one) not in job.before]


def _failed(job: Job) -> Outcome:
    return Outcome(job.spec, job.log, failure=Failure.read(job.failure_file))


def _mark(outcome: Outcome) -> str:
    """A text that identifies an outcome of a run: the failure's time or the record's digest."""
    if outcome.failure is not None:
        return outcome.failure.ended
    return outcome.record.digest if outcome.record is not None else ""


# ------------------------------------------------------------------------------------------- teams
PIXELS = {"image_size", "preprocessing", "augmentation", "mixing", "decoder"}
"""Settings that change the images of batches, besides batch size and selection."""


def teams(jobs: Sequence[Job], slots: int) -> list[list[tuple[int, Job]]]:
    """Group numbered jobs that see the same batches; divide each group into ``slots`` teams."""
    found: dict[object, list[tuple[int, Job]]] = {}
    for number, job in enumerate(jobs):
        found.setdefault(_batches_of(job.spec), []).append((number, job))
    return sorted(some[i::slots] for some in found.values() for i in range(min(slots, len(some))))


def _batches_of(spec: RunSpec) -> object:
    """Key of the batches that a run sees; unique for a run in several processes."""
    if spec.processes > 1 or not spec.settings.epochs:
        return spec.run_id
    names = PIXELS | {"batch_size", "selection"}
    names |= {"backbone", "weights"} if spec.track == "probe" else set()
    rest = spec.model_dump_json(exclude={"method", "settings", "words", "graph"})
    return rest, spec.settings.model_dump_json(include=names)


# ---------------------------------------------------------------------------------------- failures
def fail(job: Job, status: FailureKind, reason: str, remedy: str = "") -> Outcome:
    """Make the outcome of a failed run, and write ``job.failure_file``."""
    failure = Failure(
        run_id=job.spec.run_id,
        title=job.spec.title,
        status=status,
        reason=in_utf8(reason),
        remedy=remedy,
        log=last_lines(job.log),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        command=job.command,
    )
    keep_failure(job, failure)
    return Outcome(job.spec, job.log, failure=failure)


def keep_failure(job: Job, failure: Failure) -> None:
    """Write ``job.failure_file``; on a full disk, free room that launchers reserved."""
    try:
        with atomic_write(job.failure_file) as part:
            part.write_text(failure.model_dump_json(indent=1), encoding="utf-8")
    except OSError as error:
        if _give_room(job.places.results):
            keep_failure(job, failure)
        else:
            log.warning("the failure of run %s was not kept: %s", job.spec.run_id, error)


def _give_room(results: Path) -> bool:
    """Free ``ROOM`` bytes of a launcher's reserve; False if none is left."""
    for reserve in (results / "queue").glob(f"*/{RESERVE}"):
        with suppress(OSError):
            if size := reserve.stat().st_size:
                os.truncate(reserve, max(size - ROOM, 0))
                return True
    return False


def suspects(spec: RunSpec) -> str:
    """A remedy that names the third-party plugins of a run; empty if it uses none."""
    foreign = {p.name: None for p in plugins_of(spec) if p.distribution != DISTRIBUTION}
    return f"`mlbench check {' '.join(foreign)}` may say more" if foreign else ""


def last_lines(file: Path, limit: int = TAIL) -> tuple[str, ...]:
    """The last non-empty lines of a log."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(file.stat().st_size - 65_536, 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple([line for line in text.splitlines() if line.strip()][-limit:])
