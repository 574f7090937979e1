"""Carries out runs as arrays of Slurm jobs, submitted by submitit.

Slurm places the jobs, and restarts a job whose node is lost. Before it ends a job for its time or
for another job, it sends USR2: the run saves its state, and the job queues again.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

from mlbench.executors import Job, MatrixProgress, Options, Outcome, last_lines
from mlbench.types import SuiteError
from mlbench_tools.engines.remote import Follower, carry_out_here, outcome_without_answer

REFRESH = 5.0
"""Seconds between two looks at the folder of results."""
QUEUE = 30.0
"""Seconds between two requests to Slurm's controller: which jobs it has, whether it takes more."""
REQUEUES = 100
"""How often a run may reach its time limit and queue again."""
DEFAULTS = {
    "job_name": "mlbench",
    "time": 1_440,
    "signal_delay_s": 120,
    "ntasks_per_node": 1,
    "array_parallelism": 1_000,
}
"""Parameters of submitit: minutes of a job, seconds of notice before its end."""

_LOG = logging.getLogger(__name__)


class SlurmRun:
    """The callable of a Slurm job: carries out a run, and queues again if Slurm ends it early."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> Outcome:
        """Carry out the run."""
        requeue: Any = signal.getsignal(signal.SIGUSR2)  # submitit's handler
        asked = []

        def stop(number: int, _: object) -> NoReturn:
            for one in (signal.SIGUSR2, signal.SIGTERM):
                signal.signal(one, signal.SIG_IGN)
            asked.append(number)
            raise KeyboardInterrupt

        for one in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(one, stop)
        try:
            return carry_out_here(self.job)
        except KeyboardInterrupt:  # the state is saved
            if asked == [signal.SIGUSR2]:
                requeue(signal.SIGUSR2, None)  # ends this process
            while True:  # a pre-empted job queues again if Slurm has to end it
                signal.pause()

    def checkpoint(self) -> Any:
        """Return what submitit calls when the job runs again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def execute(jobs: Sequence[Job], options: Options, progress: MatrixProgress) -> list[Outcome]:
    """Carry out jobs (see ``mlbench.executors.Executor``).

    Options are those of submitit's ``SlurmExecutor.update_parameters``: ``partition``, ``time``.
    """
    try:
        import submitit
    except ImportError as error:
        message = "--executor slurm needs submitit: pip install 'mlbench-mlic[slurm]'"
        raise SuiteError(message) from error
    first = jobs[0]
    own: dict[str, Any] = {"cpus_per_task": 4 * first.spec.processes}
    if first.places.device.startswith("cuda"):
        own["gpus_per_node"] = first.spec.processes
    try:
        executor = submitit.SlurmExecutor(first.places.results / "slurm", REQUEUES)
        executor.update_parameters(**{**DEFAULTS, **own, **options.more})
    except (RuntimeError, ValueError) as error:
        raise SuiteError(f"--executor slurm: {error}") from error
    arrays = _Arrays(jobs, executor, Follower(jobs, progress))
    try:
        arrays.finish()
    except KeyboardInterrupt:
        arrays.cancel()
        raise
    return arrays.outcomes


class _Arrays:
    """The jobs of a matrix: those not yet submitted, and those that Slurm has."""

    def __init__(self, jobs: Sequence[Job], executor: Any, follower: Follower) -> None:
        self.jobs, self.executor, self.follower = jobs, executor, follower
        self.outcomes = [Outcome(job.spec, job.log) for job in jobs]
        numbers, size = range(len(jobs)), _largest_array()
        self.waiting = deque(numbers[i : i + size] for i in range(0, len(jobs), size))
        self.pending: dict[int, Any] = {}
        self.gone: set[int] = set()
        self.answers = True

    def finish(self) -> None:
        """Submit all, and wait for all."""
        asked = -QUEUE
        while self.waiting or self.pending:
            if time.monotonic() - asked > QUEUE:
                self._submit()
                self._drop_vanished()
                asked = time.monotonic()
            for number, there in list(self.pending.items()):
                if there.paths.result_pickle.exists():
                    self._end(number, _result(there, self.jobs[number]))
            self.follower.look()
            time.sleep(REFRESH)

    def cancel(self) -> None:
        """Cancel all jobs, and wait until they have saved their states."""
        ids = {there.job_id for there in self.pending.values()}
        if ids:
            subprocess.run(["scancel", *{one.partition("_")[0] for one in ids}], check=False)
        while ids & (_queued() or set()):
            time.sleep(REFRESH)

    def _submit(self) -> None:
        """Submit arrays until the site takes no more; it may take more once others have ended."""
        while self.waiting:
            part = [SlurmRun(self.jobs[number]) for number in self.waiting[0]]
            try:
                found = self.executor.submit_array(part)
            except Exception as error:  # submitit raises several types
                if self.pending:
                    return
                raise SuiteError(f"--executor slurm: sbatch refused: {error}") from error
            self.pending.update(zip(self.waiting.popleft(), found, strict=True))

    def _drop_vanished(self) -> None:
        """Give up jobs without a result that Slurm no longer has at two looks in a row."""
        queued = _queued()
        if self.answers != (queued is not None):
            self.answers = queued is not None
            silent = "does not answer squeue; waiting until it does"
            _LOG.warning("Slurm %s", "answers again" if self.answers else silent)
        if queued is None:
            return
        absent = {n for n, there in self.pending.items() if there.job_id not in queued}
        for number in absent & self.gone:
            there, job = self.pending[number], self.jobs[number]
            last = "".join(f": {line}" for line in last_lines(there.paths.stderr, 1))
            reason = f"Slurm ended its job without a result{last}"
            remedy = f"repeat the command to go on (all output: {there.paths.stderr})"
            self._end(number, outcome_without_answer(job, reason, remedy))
        self.gone = absent

    def _end(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        del self.pending[number]
        self.follower.end(number, outcome)


def _result(there: Any, job: Job) -> Outcome:
    try:
        return there.result()  # type: ignore[no-any-return]
    except Exception as error:  # of the job; the trace stands between two lines
        trace = str(error).split("\n---")[1:2] or [str(error)]
        last = trace[0].strip().splitlines()[-1]
        return outcome_without_answer(job, f"Slurm's job {there.job_id} failed: {last}")


def _largest_array() -> int:
    """The largest number of jobs in one array at this site."""
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.MULTILINE)
    return max(int(found[1]), 1) if found else 1


def _queued() -> set[str] | None:
    """This user's jobs that wait or run, as submitit names them; None if Slurm does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%F %K"]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode:
        return None
    pairs = [line.split() for line in shown.stdout.splitlines()]
    return {pair[0] if pair[1] == "N/A" else "_".join(pair) for pair in pairs}
