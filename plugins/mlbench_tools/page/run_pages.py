"""The page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mlbench import recipe
from mlbench.store import Store
from mlbench.types import MlbenchError, RunRecord, StoreError
from mlbench_tools.page.board_pages import page_file
from mlbench_tools.page.curves import curve
from mlbench_tools.page.examples import Examples, examples
from mlbench_tools.page.facts import Fact, facts
from mlbench_tools.page.label_tables import Label, PositiveCounts, labels
from mlbench_tools.page.protocol_tables import Lines, known, protocols
from mlbench_tools.page.reliability import diagram
from mlbench_tools.page.templating import OTHERS, render


@dataclass(frozen=True)
class Job:
    """One run's page to be written.

    Attributes:
        seeds: run ids of the same configuration with other seeds.
        board: name of its board in the index page, without the track.
        bibtex: of its method.
        rows: images of its predictions to look at, at most.
        measured: whether the other protocols may be computed; if not, the cache's are shown.
    """

    record: RunRecord
    seeds: tuple[str, ...]
    board: str
    bibtex: str
    rows: int
    measured: bool


def write_runs(jobs: Sequence[Job], results: Path, folder: Path, cache: Path) -> None:
    """Write the pages of some runs; one call per process.

    Args:
        jobs: the runs.
        results: the store's root.
        folder: of the site.
        cache: keeps what is derived from predictions.
    """
    store, tested = Store(results), PositiveCounts()
    for job in jobs:
        page = _page(job, store, cache, tested)
        page_file(folder, "run", job.record.run_id).write_text(page, encoding="utf-8", newline="\n")


def _page(job: Job, store: Store, cache: Path, tested: PositiveCounts) -> str:
    record = job.record
    file = store.predictions_file(record)
    seen, why_unseen = _examples(job, file, cache)
    measured, why_none = _protocols(job, store, file, cache)
    scored = _labels(record, file, tested)
    positive = {label.name for label in scored}
    return render(
        "run.html",
        OTHERS,
        "../",
        record=record,
        scores=record.scores,
        cost=record.efficiency,
        seeds=job.seeds,
        board=urlencode({"set": job.board, "track": record.spec.track}),
        curve=curve(record.epochs),
        labels=scored,
        tested=any(label.tested is not None for label in scored),
        trained=any(label.trained is not None for label in scored),
        repeat=recipe.command(record, f"{record.run_id}.yaml"),
        recipe=None if record.spec.checkpoint else recipe.text(record),
        absent=[n for n in record.label_names if n not in positive] if scored else [],
        examples=seen,
        without_examples=why_unseen,
        protocols=measured.lines if measured else (),
        undefined=measured.undefined if measured else {},
        without_protocols=why_none,
        reliability=diagram(measured.reliability) if measured and measured.reliability else None,
        bibtex=job.bibtex,
        **_tables(record),
    )


def _labels(record: RunRecord, file: Path, tested: PositiveCounts) -> list[Label]:
    try:
        counts = tested.of(file)
    except StoreError:  # the section of images says what is wrong with the file
        counts = None
    fits = counts is not None and len(counts) == len(record.label_names)
    return labels(record, counts if fits else None)


def _tables(record: RunRecord) -> dict[str, list[Fact]]:
    spec = record.spec.model_dump(mode="json")
    changed = record.spec.model_dump(mode="json", exclude_defaults=True)
    plain = record.model_dump(
        mode="json",
        include={"train_images", "validation_images", "test_images", "coverage", "checkpoint"},
    )
    return {
        "changed": facts(changed.pop("settings")) + facts(changed),
        "settings_facts": facts(spec.pop("settings")) + facts(spec),
        "cost_facts": _cost(record),
        "environment": facts(record.environment),
        "rest": facts({"identity": record.identity, **plain, "seconds": record.seconds}),
    }


def _cost(record: RunRecord) -> list[Fact]:
    if record.efficiency is None:
        return []
    plain: dict[str, Any] = record.efficiency.model_dump(mode="json")
    for latency in plain.pop("latency"):
        plain[f"latency at batch {latency.pop('batch_size')}"] = latency
    return facts(plain)


def _examples(job: Job, file: Path, cache: Path) -> tuple[Examples | None, str]:
    try:
        return examples(file, job.record.label_names, job.rows, cache), ""
    except MlbenchError as error:
        return None, str(error)


def _protocols(job: Job, store: Store, file: Path, cache: Path) -> tuple[Lines | None, str]:
    record = job.record
    try:
        found = (
            protocols(store, record, file, cache) if job.measured else known(record, file, cache)
        )
    except MlbenchError as error:
        return None, str(error)
    if found is not None:
        return found, ""
    where = file.relative_to(store.root.parent) if store.root.parent in file.parents else file
    return None, (
        f"Not computed in this build, which had too many runs for it; the next build goes on. Or: "
        f"mlbench score {where} --protocol all"
    )
