"""Carries out runs one after the other on this machine, in this group of processes if several."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from mlbench import DISTRIBUTION
from mlbench.engine.distributed import World
from mlbench.files import sweep
from mlbench.numbers import plugins_of
from mlbench.one_run import run
from mlbench.store import Store
from mlbench.types import MlbenchError, Places, Progress, RunRecord, RunSpec, StoreError

log = logging.getLogger("mlbench")


@dataclass(frozen=True)
class Outcome:
    """The end of a run: a record (also if the loss diverged) or an error."""

    spec: RunSpec
    record: RunRecord | None
    error: str | None
    log: Path


class MatrixProgress(Progress, Protocol):
    """Progress of a whole matrix."""

    def begin(self, number: int, total: int, spec: RunSpec) -> None:
        """Report that run ``number`` of ``total`` begins."""

    def end(self, outcome: Outcome) -> None:
        """The run ended."""


def execute(
    specs: Sequence[RunSpec],
    places: Places,
    world: World,
    progress: MatrixProgress,
    command: str,
) -> list[Outcome]:
    """Carry out runs in order; one that fails does not stop the others.

    With several processes only a ``MlbenchError``, which all of them raise alike, lets the matrix
    go on; after any other error their collective calls no longer match.
    """
    store = Store(places.results)
    if world.leads:
        sweep([*places.results.rglob(".*.tmp"), *places.cache.rglob(".*.tmp")])
    if places.cache_limit is not None:
        needs = tuple({spec.cached_for for spec in specs})
        places = places.model_copy(update={"cache_needs": needs})
    outcomes = []
    for i, spec in enumerate(specs):
        progress.begin(i + 1, len(specs), spec)
        file = store.run_folder(spec.run_id) / "log.txt"
        record, problem = None, None
        with _log_to(file if world.leads else None):
            try:
                record, predictions = run(spec, places, world, progress, command)
                if world.leads:
                    store.write(record, predictions)
                problem = record.error
            except Exception as error:
                log.error("%s", traceback.format_exc())
                expected = isinstance(error, MlbenchError)
                if world.size > 1 and not expected:
                    raise
                record = None
                problem = str(error) if expected else _unexpected(error, spec)
        outcomes.append(Outcome(spec, record, problem, file))
        progress.end(outcomes[-1])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return outcomes


def _unexpected(error: Exception, spec: RunSpec) -> str:
    foreign = {p.name: None for p in plugins_of(spec) if p.distribution != DISTRIBUTION}
    hint = f"; `mlbench check {' '.join(foreign)}` may name the line" if foreign else ""
    return f"{type(error).__name__}: {error}{hint}"


@contextmanager
def _log_to(file: Path | None) -> Iterator[None]:
    """Write mlbench's log to a file within the block."""
    if file is None:
        yield
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, mode="w", encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"{file} cannot be written ({error.strerror}); free space, grant write permission, "
            "or name another folder with --results"
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
