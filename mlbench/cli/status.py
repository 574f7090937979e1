"""``mlbench status``: where every run of a store is."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from mlbench.cli.console import Results, console, plain_table
from mlbench.text import count
from mlbench.types import StoreError

if TYPE_CHECKING:
    from mlbench.executors import Failure
    from mlbench.executors.run_status import RunStatus
    from mlbench.executors.sharing import QueuedRun
    from mlbench.leases import Holder

State = Literal["done", "diverged", "running", "stopped", "failed", "queued"]
STATES: tuple[State, ...] = get_args(State)
BEGUN = ("lease-1.json", "status.json", "failure.json")
"""In the folder of a run that was begun; one that did not fit into a budget has its log alone."""


class RunState(NamedTuple):
    """Where a run is.

    Attributes:
        state: ``stopped``: it was interrupted, or its process has not answered for a while.
        holder: who carries it out, or did so last, or has it in the queue.
        why: a queued one is missing, or one diverged.
    """

    title: str
    state: State
    holder: Holder | None = None
    status: RunStatus | None = None
    failure: Failure | None = None
    why: str = ""

    @property
    def detail(self) -> str:
        """How far it is, and who has it, or why it failed."""
        if self.state == "failed" and self.failure is not None:
            return self.failure.reason
        if self.state == "diverged":
            return self.why
        parts = [self.status.text] if self.status is not None else []
        return ", ".join([*parts, *([str(self.holder)] if self.holder is not None else [])])


def check_folder(results: Path) -> None:
    """Refuse a folder of results that is not there, but for the usual one.

    Raises:
        StoreError: it was named wrongly.
    """
    if not results.is_dir() and results != Path("results"):
        raise StoreError(f"there is no folder {results}; name that of the results by --results")


def overview(root: Path) -> dict[str, RunState]:
    """Run id -> where each run is that a store or the queue of a launcher knows."""
    from mlbench.executors.sharing import queued
    from mlbench.store import Store

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
    """Where a run is; an outcome from before a launcher took it into its queue does not count."""
    from mlbench.executors import read_failure
    from mlbench.executors.run_status import read_status
    from mlbench.leases import find_holder

    failure_file = folder / "failure.json"
    failure, status, holder = read_failure(failure_file), read_status(folder), find_holder(folder)
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
    """Whether a run with a record diverged; only those that did are read whole, for speed."""
    from mlbench.evidence import read_record

    data = file.read_bytes()
    if b'"status": "diverged"' in data:
        with suppress(StoreError):  # `mlbench leaderboard` names damaged records
            record = read_record(data, file)
            return RunState(record.spec.title, "diverged", why=record.error or "")
    return RunState("", "done")


def status(results: Results = Path("results")) -> None:
    """Show which runs are queued, running, done or failed, and why."""
    check_folder(results)
    found = overview(results)
    table = plain_table(("run", "what", "state", ""))
    for run_id, one in found.items():
        if one.state in ("diverged", "running", "stopped", "failed"):
            table.add_row(run_id, one.title, one.state, one.detail)
    if table.rows:
        console.print(table)
    totals = Counter(one.state for one in found.values())
    said = ", ".join(f"{totals[state]:,} {state}" for state in STATES if totals[state])
    console.print(f"{count(len(found), 'run')} in {results}: {said or 'nothing yet'}")
    if totals["failed"] or totals["stopped"]:
        console.print("`mlbench why RUN` says more; repeat `mlbench run` to go on with them.")
    if totals["diverged"]:
        console.print("`mlbench run --retry-diverged` runs diverged runs again.")
