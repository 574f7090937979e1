"""The status of a run, kept in its folder for every process that reads the store."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from mlbench.evidence import read_record
from mlbench.executors import Failure, Job, Kept
from mlbench.executors.sharing import QueuedRun, queued
from mlbench.files import atomic_write
from mlbench.leases import Holder, Lease, find_holder
from mlbench.store import Store
from mlbench.types import EpochLog, Progress, StoreError

INTERVAL = 5.0
"""Least seconds between two status files of a run."""
STATUS = "status.json"


class RunStatus(Kept):
    """The progress of a run.

    Attributes:
        title: title of the run.
        phase: the current phase, such as "feature maps of train" or "training".
        done, total: images of the phase, or steps of the training; 0 of 0 if nothing is counted.
        epoch, epochs: current epoch, from 1 (0 outside training), and number of epochs.
        loss: loss of the last step; None before training, or if it is not finite.
        images_per_second: speed at the last step; 0 outside training.
        seconds: time since this attempt began.
        left: seconds until the training or the phase ends; None if unknown.
    """

    title: str
    phase: str = ""
    done: int = 0
    total: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    images_per_second: float = 0.0
    seconds: float = 0.0
    left: float | None = None

    @property
    def text(self) -> str:
        """The phase and its progress, in words."""
        epoch = f" {self.epoch}/{self.epochs}" if self.epoch else ""
        share = f" {self.done / self.total:.0%}" if self.total else ""
        speed = f", {self.images_per_second:.0f} images/s" if self.images_per_second else ""
        left = "" if self.left is None else f", {as_time(self.left)} left"
        return f"{self.phase}{epoch}{share}{speed}{left}"


def as_time(seconds: float) -> str:
    """Format seconds as ``0:02:30``."""
    return str(timedelta(seconds=round(seconds)))


class Followed:
    """Collects the progress of a run.

    Attributes:
        now: its current status.
        began: when the run began, by the machine's monotonic clock.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self.now = RunStatus(title=title, epochs=epochs)
        self.began = time.monotonic()
        self._first: tuple[float, int] | None = None

    def phase(self, text: str) -> None:
        """A phase begins."""
        self._first = None
        self._update(phase=text, done=0, total=0, epoch=0, images_per_second=0.0, left=None)

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` images are done."""
        self._update(done=done, total=total, left=self._left(done, total))

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """A step is done."""
        done, total = epoch * steps + step, self.now.epochs * steps
        left = self._left(done, total)
        self._update(
            epoch=epoch + 1, done=done, total=total, loss=loss, images_per_second=speed, left=left
        )

    def _left(self, done: int, total: int) -> float | None:
        now = time.monotonic()
        if self._first is None or total != self.now.total:
            self._first = now, done
        began, first = self._first
        return (now - began) / (done - first) * (total - done) if done > first else None

    def _update(self, **changes: object) -> None:
        seconds = time.monotonic() - self.began
        self.now = self.now.model_copy(update={**changes, "seconds": seconds})


class StatusFile(Followed):
    """Writes a run's progress to ``status.json`` in its folder, and passes it on to ``progress``.

    Errors of writing are ignored. If the lease of the run is lost, the next step raises
    ``StoreError``.
    """

    def __init__(self, job: Job, lease: Lease, progress: Progress) -> None:
        super().__init__(job.spec.title, job.spec.settings.epochs)
        self.job, self.lease, self.progress = job, lease, progress
        self._written = -INTERVAL

    def phase(self, text: str) -> None:
        """A phase begins."""
        self._written = -INTERVAL  # a phase is written at once
        super().phase(text)
        self.progress.phase(text)

    def count(self, done: int, total: int) -> None:
        """``done`` of ``total`` images are done."""
        super().count(done, total)
        self.progress.count(done, total)

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """A step is done."""
        super().step(epoch, step, steps, loss, speed)
        self.progress.step(epoch, step, steps, loss, speed)

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""
        self.progress.epoch(log)

    def _update(self, **changes: object) -> None:
        super()._update(**changes)
        self.lease.assert_held()
        if (now := time.monotonic()) - self._written >= INTERVAL:
            self._written = now
            with suppress(OSError), atomic_write(self.job.folder / STATUS) as part:
                part.write_text(self.now.model_dump_json(), encoding="utf-8")


# --------------------------------------------------------------------------------------- every run
State = Literal["done", "diverged", "running", "stopped", "failed", "queued"]
STATES: tuple[State, ...] = get_args(State)
BEGUN = ("lease-1.json", STATUS, "failure.json")
"""Files of a run that has begun; a run that did not fit into a time budget has a log alone."""


class RunState(NamedTuple):
    """The state of a run.

    Attributes:
        state: ``stopped``: it was interrupted, or its process no longer responds.
        holder: the launcher that carries it out, did so last, or has queued it.
        why: the reason why a queued run is missing, or why a run diverged.
    """

    title: str
    state: State
    holder: Holder | None = None
    status: RunStatus | None = None
    failure: Failure | None = None
    why: str = ""

    @property
    def detail(self) -> str:
        """The progress and the launcher of the run, or why it failed."""
        if self.state == "failed" and self.failure is not None:
            return self.failure.reason
        if self.state == "diverged":
            return self.why
        parts = [self.status.text] if self.status is not None else []
        return ", ".join([*parts, *([str(self.holder)] if self.holder is not None else [])])


def overview(root: Path) -> dict[str, RunState]:
    """Run id -> state, for all runs in a store and in the queues of launchers.

    Raises:
        StoreError: there is no such folder, unless it is the usual one.
    """
    if not root.is_dir() and root != Path("results"):
        raise StoreError(f"there is no folder {root}; name that of the results by --results")
    records = Store(root).record_files()
    queue = {run.run_id: (who, when, run) for who, when, runs in queued(root) for run in runs}
    begun = {file.parent.name for name in BEGUN for file in root.glob(f"runs/*/{name}")}
    return {
        run_id: _state(root / "runs" / run_id, records.get(run_id), queue.get(run_id))
        for run_id in sorted(records.keys() | queue.keys() | begun)
    }


def _state(
    folder: Path, record: Path | None, entry: tuple[Holder, float, QueuedRun] | None
) -> RunState:
    """The state of one run; ignores outcomes older than its queue entry."""
    failure_file = folder / "failure.json"
    failure, status = Failure.read(failure_file), RunStatus.read(folder / STATUS)
    holder = find_holder(folder)
    title = next((one.title for one in (status, failure) if one is not None), "")
    if holder is not None and not holder.stale:
        return RunState(title, "running", holder, status)
    files = [file for file in (failure_file if failure else None, record) if file is not None]
    if entry is not None:
        launcher, since, run = entry
        if all(file.stat().st_mtime < since for file in files):
            return RunState(run.title, "queued", launcher, why=run.why)
    if failure is not None and files[-1].stat().st_mtime > failure_file.stat().st_mtime:
        failure = None  # the record was put into the store by hand, as the failure said
    if holder is None and failure is not None:
        return RunState(title, "failed", failure=failure)
    if holder is None and record is not None:
        return _ended(record)
    return RunState(title, "stopped", holder, status)


def _ended(file: Path) -> RunState:
    """The state of a run with a record; for speed, only diverged records are parsed."""
    data = file.read_bytes()
    if b'"status": "diverged"' in data:
        with suppress(StoreError):  # `mlbench leaderboard` names damaged records
            record = read_record(data, file)
            return RunState(record.spec.title, "diverged", why=record.error or "")
    return RunState("", "done")
