"""Progress of a matrix: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

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
    return f"{outcome.spec.title} FAILED: {outcome.error} (log: {outcome.log})"


class Silent:
    """Prints nothing; for processes that do not lead.

    Args:
        variants: run id -> settings that differ from other runs of the same title.
    """

    def __init__(self, variants: Mapping[str, str] = NO_VARIANTS) -> None:
        self.variants = variants

    def _title(self, spec: RunSpec) -> str:
        return f"{spec.title} {self.variants.get(spec.run_id, '')}".rstrip()

    def __enter__(self) -> Silent:
        """Nothing to set up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take down."""

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Report that a run begins."""
        return self

    def end(self, outcome: Outcome) -> None:
        """Report how a run ended."""

    def stage(self, text: str) -> None:
        """Report that a stage begins."""

    def count(self, done: int, total: int) -> None:
        """Report the progress of the stage."""

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """Report a finished step."""

    def epoch(self, log: EpochLog) -> None:
        """Report a finished epoch."""


class Lines(Silent):
    """Prints a line for every run and epoch; for logs and pipes."""

    def begin(self, number: int, total: int, spec: RunSpec) -> Progress:
        """Print the title of the run."""
        self._print(f"[{number}/{total}] {self._title(spec)}")
        return self

    def end(self, outcome: Outcome) -> None:
        """Print the result of the run."""
        self._print(f"  {outcome_line(outcome)}")

    def epoch(self, log: EpochLog) -> None:
        """Print the loss and the speed of the epoch."""
        chosen_by = "" if log.mAP is None else f", mAP {log.mAP:.2f}"
        speed = f"{log.images_per_second:.0f} images/s"
        self._print(f"  epoch {log.epoch}: loss {log.loss:.4f}{chosen_by}, {speed}")

    def _print(self, text: str) -> None:
        errors.print(text)


class Live(Silent):
    """Draws two bars on a terminal: one for the matrix and one for the current run."""

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
        self.epochs = 1
        self.matrix: Any = None
        self.current: Any = None

    def __enter__(self) -> Live:
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
        self.bars.update(self.matrix, completed=number - 1)
        self.epochs = spec.settings.epochs
        self.current = self.bars.add_task(self._title(spec), total=None, detail="")
        return self

    def end(self, outcome: Outcome) -> None:
        """Replace the bar of the run by a line."""
        self.bars.remove_task(self.current)
        self.bars.advance(self.matrix)
        self.bars.console.print(outcome_line(outcome), markup=False, highlight=False)

    def stage(self, text: str) -> None:
        """Show the name of the stage."""
        self.bars.reset(self.current, total=None, detail=text)

    def count(self, done: int, total: int) -> None:
        """Report the progress of the stage."""
        self.bars.update(self.current, completed=done, total=total)

    def step(self, epoch: int, step: int, steps: int, loss: float, speed: float) -> None:
        """Count steps over the whole run, so that the remaining time is that of the run."""
        self.bars.update(
            self.current,
            completed=epoch * steps + step,
            total=self.epochs * steps,
            detail=f"epoch {epoch + 1}/{self.epochs}, loss {loss:.4f}, {speed:.0f} images/s",
        )
