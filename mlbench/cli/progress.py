"""Progress of a matrix: bars on a terminal, plain lines elsewhere; and what trackers hear of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from mlbench import registry
from mlbench.cli.console import errors
from mlbench.executors import Outcome
from mlbench.executors.run_status import Followed, as_time
from mlbench.types import NO_CHECKPOINT, EpochLog, MlbenchError, Plan, Progress, RunSpec

SILENCE = 20.0
"""Seconds without output after which a line says what is running."""
FEW = 8
"""Largest number of runs that get a line each in that output."""


def outcome_line(outcome: Outcome, brief: bool = False) -> str:
    """Describe the result of a run; ``brief`` leaves out the list below the line of an error."""
    record = outcome.record
    if record is not None and record.scores is not None:
        seconds = sum(record.seconds.values())
        lost = "".join(f"; {note}" for note in record.notes if note.startswith(NO_CHECKPOINT))
        return f"{outcome.spec.title}: mAP {record.scores.mAP:.2f} in {seconds:.0f} s{lost}"
    if outcome.holder:
        return f"{outcome.spec.title}: carried out by {outcome.holder}"
    if outcome.error is None:
        return f"{outcome.spec.title}: not finished; repeat the command to go on"
    error = outcome.error.partition("\n")[0] if brief else outcome.error
    return f"{outcome.spec.title} FAILED: {error} (log: {outcome.log})"


class Reminder:
    """Prints what is running whenever nothing was printed for ``SILENCE``, until its block ends.

    By default it prints ``what`` and the elapsed time.
    """

    def __init__(self, what: str, describe: Callable[[], Iterable[str]] | None = None) -> None:
        self._began = self._printed = time.monotonic()
        self._describe = describe or (lambda: [f"{what}: {self.so_far}"])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def so_far(self) -> str:
        """The elapsed time, in words."""
        return f"{as_time(time.monotonic() - self._began)} so far"

    def print(self, text: str) -> None:
        """Print a line."""
        self._printed = time.monotonic()
        errors.print(text)

    def relay(self, text: str) -> None:
        """Write what another process printed."""
        self._printed = time.monotonic()
        with suppress(OSError):
            sys.stderr.write(text)

    def _watch(self) -> None:
        while not self._ended.wait(SILENCE / 20):
            if time.monotonic() - self._printed >= SILENCE:
                for line in self._describe():
                    self.print(line)


class RunLines(Followed):
    """Says a line for every epoch of a run."""

    def __init__(self, title: str, epochs: int, say: Callable[[str], None]) -> None:
        super().__init__(title, epochs)
        self._say = say

    def epoch(self, log: EpochLog) -> None:
        """Say the loss and the speed of the epoch."""
        chosen_by = "" if log.mAP is None else f", mAP {log.mAP:.2f}"
        speed = f"{log.images_per_second:.0f} images/s"
        self._say(f"epoch {log.epoch}: loss {log.loss:.4f}{chosen_by}, {speed}")


class Pace:
    """Estimates the time for the remaining runs from the ended ones; as text, ``0:20:00 left``.

    A run that takes longer than their mean counts by the time that it tells itself.
    """

    def __init__(self) -> None:
        self.total = self.ended = 0
        self.seconds = 0.0
        self.under_way: dict[str, Followed] = {}

    def begin(self, run_id: str, total: int, run: Followed) -> None:
        """A run begins."""
        self.total = max(self.total, total)
        self.under_way[run_id] = run

    def end(self, outcome: Outcome) -> None:
        """A run ended, for good or not."""
        seconds = time.monotonic() - self.under_way.pop(outcome.spec.run_id).began
        if outcome.decided:
            self.ended, self.seconds = self.ended + 1, self.seconds + seconds

    def __str__(self) -> str:
        if not self.ended:
            return ""
        mean, now = self.seconds / self.ended, time.monotonic()
        runs = self.under_way.values()
        lefts = [max(mean - (now - run.began), run.now.left or 0.0) for run in runs]
        if 0.0 in lefts:  # longer than the mean, and it does not say how long
            return ""
        rest = mean * max(self.total - self.ended - len(lefts), 0) + sum(lefts)
        return f"{as_time(max([rest / max(len(lefts), 1), *lefts]))} left"


class Lines(Reminder):
    """Prints a line for every run and epoch, and reminders of progress; for logs and pipes.

    Attributes:
        titles: run id -> title; a run without one is called as its spec.
        waits_for: text that says for whom this launcher waits while nothing runs here.
    """

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        super().__init__("the matrix", self.where)
        self.titles = titles or {}
        self._told = set[str | None]()
        self.waits_for = ""
        self.pace = Pace()

    def wait(self, text: str) -> None:
        """Print whom this launcher waits for."""
        self.waits_for = text
        self.print(text)

    def where(self) -> Iterable[str]:
        """The progress of the current runs, and of the matrix if it has several."""
        runs = list(self.pace.under_way.values())
        yield from [self._line(one, one.now.text) for one in runs[:FEW]]
        if not runs:
            what = "between two runs" if self.pace.total else "no run has begun yet"
            yield f"{self.waits_for or what}: {self.so_far}"
        if self.pace.total > 1:
            done = f"{self.pace.ended} of {self.pace.total} runs done"
            yield f"  {done}, {len(runs)} under way, {self.pace}".rstrip(", ")

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Print the title of the run."""
        title = self.titles.get(spec.run_id, spec.title)
        self.print(f"[{number}/{total}] {title}")
        epochs = spec.settings.epochs
        run = RunLines(f"[{number}] ", epochs, lambda text: self.print(self._line(run, text)))
        self.pace.begin(spec.run_id, total, run)
        return run

    def _line(self, run: Followed, text: str) -> str:
        """A line about a run, with its number if several are under way."""
        return f"  {run.now.title if len(self.pace.under_way) > 1 else ''}{text}"

    def end(self, outcome: Outcome) -> None:
        """Print the result of the run."""
        self.pace.end(outcome)
        self.print(f"  {self.outcome(outcome)}")

    def outcome(self, outcome: Outcome) -> str:
        """Describe the result of a run; files that an error lists are listed once."""
        known = outcome.error in self._told
        self._told.add(outcome.error)
        return outcome_line(outcome, brief=known)


class Live(Lines):
    """Draws bars on a terminal: one for the matrix and one for each run under way."""

    def __init__(self, titles: Mapping[str, str] | None = None) -> None:
        super().__init__(titles)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=errors,
            transient=True,
        )
        self.matrix: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Add a bar for the run."""
        if self.matrix is None:
            self.matrix = self.bars.add_task("matrix", total=total, detail=self.pace)
        title = self.titles.get(spec.run_id, spec.title)
        task = self.bars.add_task(title, total=None, detail="")
        self.tasks[spec.run_id] = task
        run = _RunBar(self.bars, task, spec.settings.epochs)
        self.pace.begin(spec.run_id, total, run)
        return run

    def end(self, outcome: Outcome) -> None:
        """Replace the bar of the run by a line."""
        self.pace.end(outcome)
        self.bars.remove_task(self.tasks.pop(outcome.spec.run_id))
        self.bars.advance(self.matrix, int(outcome.decided))
        self.bars.console.print(self.outcome(outcome))


class _RunBar(Followed):
    """The bar of a run."""

    def __init__(self, bars: Bars, task: Any, epochs: int) -> None:
        super().__init__("", epochs)
        self.bars, self.task = bars, task

    def epoch(self, log: EpochLog) -> None:
        """The bar shows it already."""

    def _update(self, **changes: object) -> None:
        super()._update(**changes)
        now, loss = self.now, f", loss {self.now.loss:.4f}" if self.now.epoch else ""
        detail = f"{now.text}{loss}"
        self.bars.update(self.task, completed=now.done, total=now.total or None, detail=detail)


# --------------------------------------------------------------------------------------- trackers
class Tracked:
    """Passes the progress of a matrix to trackers and to the display.

    A plugin of the group ``mlbench.trackers`` makes, from the folder of the results, an object with
    the methods ``plan(plan)``, ``step(spec, step, loss, images_per_second)`` (at most ten times a
    second), ``epoch(spec, log)``, ``record(record)`` and ``close()``, which the command's process
    calls. One that fails is reported and not called again; runs continue.

    Args:
        names: names of the trackers.
        results: their argument.
        plan: the plan, which they get first.
        shown: shows the progress.

    Raises:
        MlbenchError: a tracker is unknown, or says what it lacks.
    """

    def __init__(self, names: Iterable[str], results: Path, plan: Plan, shown: Lines) -> None:
        self.plan, self.shown = plan, shown
        self._trackers: dict[str, Any] = {}
        for name in names:
            make = registry.find("tracker", name).load()
            try:
                self._trackers[name] = make(results)
            except MlbenchError:
                raise
            except Exception as error:  # for example, a server does not answer
                _report(name, error)

    def tell(self, event: str, *values: object) -> None:
        """Call a method of every tracker."""
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, event)(*values)
            except (Exception, SystemExit) as error:
                del self._trackers[name]
                _report(name, error)

    def __enter__(self) -> Self:
        self.shown.__enter__()
        self.tell("plan", self.plan)
        return self

    def __exit__(self, *_: object) -> None:
        self.tell("close")
        self.shown.__exit__()

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """A run begins."""
        return _TrackedRun(self, spec, self.shown.begin(number, total, spec))

    def end(self, outcome: Outcome) -> None:
        """A run ended."""
        self.shown.end(outcome)
        if outcome.record is not None:
            self.tell("record", outcome.record)


class _TrackedRun:
    """Passes on the progress of one run."""

    def __init__(self, matrix: Tracked, spec: RunSpec, shown: Progress) -> None:
        self.matrix, self.spec = matrix, spec
        self.phase, self.count, self._shown = shown.phase, shown.count, shown

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """A step is done."""
        self._shown.step(epoch, step, steps, loss, speed)
        self.matrix.tell("step", self.spec, epoch * steps + step, loss, speed)

    def epoch(self, log: EpochLog) -> None:
        """An epoch is done."""
        self._shown.epoch(log)
        self.matrix.tell("epoch", self.spec, log)


def _report(name: str, error: BaseException) -> None:
    what = f"{type(error).__name__}: {error}"
    errors.print(f"tracker {name} failed and is told nothing more: {what}", style="red")
