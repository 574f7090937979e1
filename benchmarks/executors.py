"""What an executor costs a run: the time that runs take which have nothing to do.

    python benchmarks/executors.py local --runs 500
    python benchmarks/executors.py ray --runs 100 --jobs 2
    python benchmarks/executors.py slurm --runs 20 --option partition=debug

Every run has a record that came after its plan, as if another launcher had made it: its process
starts, claims it, finds the record, gives it back and ends.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mlbench import registry
from mlbench.executors import Job, Options, Outcome
from mlbench.numbers import numbers_of
from mlbench.store import Store
from mlbench.text import named_values
from mlbench.types import Places, RunRecord, RunSpec, Settings
from mlbench_tools.engines.remote import Unwatched


class Ends(Unwatched):
    """Notes when runs end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def end(self, outcome: Outcome) -> None:
        """A run ended."""
        self.times.append(time.perf_counter())


def finished(seed: int, places: Places) -> Job:
    """A job whose run is done."""
    settings = Settings(backbone="resnet18", head="gap", epochs=1, image_size=224)
    spec = RunSpec(
        method="gap",
        dataset="voc2007",
        data="d" * 16,
        track="controlled",
        seed=seed,
        settings=settings,
    )
    record = RunRecord(
        run_id=spec.run_id,
        spec=spec,
        identity="nothing",
        status="diverged",
        label_names=("a", "b"),
        train_images=1,
        test_images=1,
        environment={},
        started="2026-01-01T00:00:00+00:00",
        seconds={},
        command="",
        commit=None,
        numbers=numbers_of(spec),
    )
    Store(places.results).write(record)
    return Job(spec=spec, places=places, command="")


def main() -> None:
    """Print seconds a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executor")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", default=None, help="for the store; shared, for a cluster")
    parser.add_argument("--option", action="append", default=[])
    given = parser.parse_args()
    execute = registry.find("executor", given.executor).load()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        places = Places(results=Path(folder) / "results", cache=Path(folder) / "cache")
        began = time.perf_counter()
        jobs = [finished(seed, places) for seed in range(given.runs)]
        wrote = time.perf_counter()
        options = Options(jobs=given.jobs, more=named_values(given.option))
        ends = Ends()
        outcomes = execute(jobs, options, ends)
    assert all(outcome.record is not None for outcome in outcomes)
    first, last = ends.times[0], ends.times[-1]
    print(f"to write a record: {1000 * (wrote - began) / given.runs:.1f} ms")
    print(f"until the first run has ended: {first - wrote:.1f} s")
    print(f"each run after it: {1000 * (last - first) / (given.runs - 1):.0f} ms")


if __name__ == "__main__":
    main()
