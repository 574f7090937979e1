"""Progress of a matrix: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from mlbench.cli.console import errors

if TYPE_CHECKING:
    from mlbench.executors import Outcome
    from mlbench.types import EpochLog, Progress, RunSpec


NO_VARIANTS: Mapping[str, str] = MappingProxyType({})


def outcome_line(outcome: Outcome) -> str:
    """Describe the result of a run in one line."""
    record = outcome.record
    if record is not None and record.scores is not None:
        seconds = sum(record.seconds.values())
        return f"{outcome.spec.title}: mAP {record.scores.mAP:.2f} in {seconds:.0f} s"
    if outcome.holder:
        return f"{outcome.spec.title}: carried out by {outcome.holder}"
    if outcome.error is None:
        return f"{outcome.spec.title}: not finished; repeat the command to go on"
    return f"{outcome.spec.title} FAILED: {outcome.error} (log: {outcome.log})"


class RunLines:
    """Prints a line for every epoch of a run.

    Args:
        mark: what the lines begin with.
    """

    def __init__(self, mark: Callable[[], str] = lambda: "") -> None:
        self._mark = mark

    def stage(self, text: str) -> None:
        """Nothing is printed."""

    def count(self, done: int, total: int) -> None:
        """Nothing is printed."""

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """Nothing is printed."""

    def epoch(self, log: EpochLog) -> None:
        """Print the loss and the speed of the epoch."""
        chosen_by = "" if log.mAP is None else f", mAP {log.mAP:.2f}"
        speed = f"{log.images_per_second:.0f} images/s"
        errors.print(f"  {self._mark()}epoch {log.epoch}: loss {log.loss:.4f}{chosen_by}, {speed}")


class Lines:
    """Prints a line for every run and epoch; for logs and pipes.

    Args:
        variants: run id -> settings that differ from other runs of the same title.
    """

    def __init__(self, variants: Mapping[str, str] = NO_VARIANTS) -> None:
        self.variants = variants
        self.under_way: set[str] = set()

    def __enter__(self) -> Self:
        """Begin to show the matrix."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def title(self, spec: RunSpec) -> str:
        """The run in a few words, with what tells it from others."""
        return f"{spec.title} {self.variants.get(spec.run_id, '')}".rstrip()

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Print the title of the run."""
        self.under_way.add(spec.run_id)
        errors.print(f"[{number}/{total}] {self.title(spec)}")
        return RunLines(lambda: f"[{number}] " if len(self.under_way) > 1 else "")

    def end(self, outcome: Outcome) -> None:
        """Print the result of the run."""
        self.under_way.discard(outcome.spec.run_id)
        errors.print(f"  {outcome_line(outcome)}")


class Live(Lines):
    """Draws bars on a terminal: one for the matrix and one for each run under way."""

    def __init__(self, variants: Mapping[str, str] = NO_VARIANTS) -> None:
        super().__init__(variants)
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(),
            console=errors,
            transient=True,
        )
        self.matrix: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Start drawing."""
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self.bars.stop()

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Add a bar for the run."""
        if self.matrix is None:
            self.matrix = self.bars.add_task("matrix", total=total, detail="")
        task = self.bars.add_task(self.title(spec), total=None, detail="")
        self.tasks[spec.run_id] = task
        return _RunBar(self.bars, task, spec.settings.epochs)

    def end(self, outcome: Outcome) -> None:
        """Replace the bar of the run by a line."""
        self.bars.remove_task(self.tasks.pop(outcome.spec.run_id))
        self.bars.advance(self.matrix, int(outcome.decided))
        self.bars.console.print(outcome_line(outcome), markup=False, highlight=False)


class _RunBar:
    """The bar of a run."""

    def __init__(self, bars: Bars, task: Any, epochs: int) -> None:
        self.bars, self.task, self.epochs = bars, task, epochs

    def stage(self, text: str) -> None:
        """Show the name of the stage."""
        self.bars.reset(self.task, total=None, detail=text)

    def count(self, done: int, total: int) -> None:
        """Report the progress of the stage."""
        self.bars.update(self.task, completed=done, total=total)

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """Count steps over the whole run, so that the remaining time is that of the run."""
        self.bars.update(
            self.task,
            completed=epoch * steps + step,
            total=self.epochs * steps,
            detail=f"epoch {epoch + 1}/{self.epochs}, loss {loss:.4f}, {speed:.0f} images/s",
        )

    def epoch(self, log: EpochLog) -> None:
        """The bar shows it already."""
