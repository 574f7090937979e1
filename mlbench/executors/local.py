"""Runs one after the other on this machine (or, under a launcher, on this group of processes)."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from mlbench.engine.distributed import World
from mlbench.one_run import run
from mlbench.store import Store
from mlbench.types import MlbenchError, Places, Progress, RunRecord, RunSpec, StoreError


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a record (of success, or of a loss that diverged), or with an error."""

    spec: RunSpec
    record: RunRecord | None
    error: str | None
    log: Path


class MatrixProgress(Progress, Protocol):
    """Progress of a whole matrix."""

    def begin(self, number: int, total: int, spec: RunSpec) -> None:
        """Run ``number`` of ``total`` begins."""
        ...

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        ...


def execute(
    specs: Sequence[RunSpec],
    places: Places,
    world: World,
    progress: MatrixProgress,
    command: str,
) -> list[Outcome]:
    """Carry out runs in order; one that fails does not stop the others.

    On several processes only errors that all of them meet alike (``MlbenchError``) let the matrix
    go on: after any other, their collective calls no longer match.
    """
    store = Store(places.results)
    outcomes = []
    for i, spec in enumerate(specs):
        progress.begin(i + 1, len(specs), spec)
        file = store.run_folder(spec.run_id) / "log.txt"
        with _log_to(file if world.leads else None):
            outcome = _one(spec, places, world, progress, _Kept(store, command, file))
        outcomes.append(outcome)
        progress.end(outcome)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return outcomes


class _Kept(NamedTuple):
    """What is kept of a run beside its numbers: where it stands, its command line and its log."""

    store: Store
    command: str
    log: Path


def _one(
    spec: RunSpec,
    places: Places,
    world: World,
    progress: Progress,
    kept: _Kept,
) -> Outcome:
    try:
        record, predictions = run(spec, places, world, progress, kept.command)
        if world.leads:
            kept.store.write(record, predictions)
    except Exception as error:
        logging.getLogger("mlbench").error("%s", traceback.format_exc())
        expected = isinstance(error, MlbenchError)
        if world.size > 1 and not expected:
            raise
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        return Outcome(spec, None, text, kept.log)
    return Outcome(spec, record, record.error, kept.log)


@contextmanager
def _log_to(file: Path | None) -> Iterator[None]:
    """Send mlbench's log to a file for a while."""
    logger = logging.getLogger("mlbench")
    if file is None:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, mode="w", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written ({error.strerror}); make room, give write permission, or "
            "name another folder with --results"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
