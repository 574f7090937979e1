"""Trackers: plugins that receive the progress of a matrix, for example to draw its losses.

A plugin of the group ``mlbench.trackers`` makes, from the folder of the results, an object with the
methods ``plan(plan)``, ``step(spec, step, loss, images_per_second)`` (at most ten times a second),
``epoch(spec, log)``, ``record(record)`` and ``close()``, which the command's process calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from mlbench import registry
from mlbench.cli.console import errors
from mlbench.cli.progress import Lines
from mlbench.executors import Outcome
from mlbench.types import EpochLog, MlbenchError, Plan, Progress, RunSpec


class Tracked:
    """Passes the progress of a matrix to trackers and to the display.

    A tracker that fails is reported and not called again; runs continue.

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
