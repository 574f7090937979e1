"""Carries out runs one after the other on this machine, in this group of processes if several."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence

import torch

from mlbench.engine.distributed import World
from mlbench.executors import MatrixProgress, Outcome, make_jobs
from mlbench.executors.worker import carry_out
from mlbench.types import Places, RunSpec

UNEXPECTED = re.compile(r"[\w.]+: ")
"""How the reason of an error begins that is not ours."""


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
    jobs = world.ask_leader(lambda: make_jobs(specs, places, command))
    outcomes = []
    for i, job in enumerate(jobs):
        outcome = carry_out(job, world, progress.begin(i + 1, len(jobs), job.spec))
        if world.size > 1 and outcome.failure and UNEXPECTED.match(outcome.failure.reason):
            raise RuntimeError(outcome.failure.reason)
        outcomes.append(outcome)
        progress.end(outcome)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return outcomes
