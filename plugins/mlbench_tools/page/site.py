"""Writes the whole site: the index, a page per method and a page per run."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from mlbench.boards.rows import Table
from mlbench.store import Store
from mlbench.types import RunRecord, StoreError
from mlbench_tools.page.board_pages import Names, Site, address, data, names, page_file
from mlbench_tools.page.catalogue import Catalogue
from mlbench_tools.page.literature import cached_scores, lines
from mlbench_tools.page.method_pages import write_method
from mlbench_tools.page.protocol_tables import cached
from mlbench_tools.page.published import Published
from mlbench_tools.page.run_pages import Job, write_runs
from mlbench_tools.page.stale import remove_stale
from mlbench_tools.page.templating import INDEX, render

LOOKED_AT = 400_000_000
"""Logits that a build looks at to find the worst and best images, shared by all runs."""
MEASURED = 12_000_000
"""Logits that a build measures under all protocols: best ranks first, and the rest in later ones,
as what was measured is cached. A logit costs about a microsecond there."""
FEW = 64
"""Runs that are not worth a second process."""


def write_site(
    tables: Sequence[Table],
    records: Iterable[RunRecord],
    folder: Path,
    *,
    results: Path,
    cache: Path,
    catalogue: Catalogue,
    published: Sequence[Published] = (),
) -> Path:
    """Write the site and return its index page; pages of an earlier build that are not in it go.

    Args:
        tables: the boards.
        records: all of their runs.
        folder: of the site; it is made.
        results: the store's root, for the predictions.
        cache: keeps what is derived from predictions.
        catalogue: what plugins say of themselves.
        published: the literature's numbers.

    Raises:
        StoreError: a file cannot be written.
    """
    by_id = {record.run_id: record for record in records}
    called = names(tables)
    try:
        for kind in ("run", "method"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        jobs = _jobs(tables, by_id, called, catalogue)
        _write_all(jobs, results, folder, cache / "page")
        methods = sorted({record.spec.method for record in by_id.values()})
        for method in methods:
            write_method(method, tables, called, catalogue, folder)
        index = folder / "index.html"
        read = cached(by_id, Store(results), cache / "page")
        page = render(
            "index.html",
            INDEX,
            "",
            tables=tables,
            runs=len(by_id),
            data=data(tables, Site(by_id, catalogue, read, published)),
            methods=[_method(name, catalogue) for name in methods],
            published=lines(published, tables, methods, cached_scores(read)),
        )
        index.write_text(page, encoding="utf-8", newline="\n")
        runs = {page_file(folder, "run", job.record.run_id) for job in jobs}
        remove_stale(folder / "run", runs)
        remove_stale(folder / "method", {page_file(folder, "method", name) for name in methods})
    except OSError as error:
        raise StoreError(
            f"{error.filename or folder}: the page could not be written ({error.strerror or error})"
            "; make room or give write permission, then run the command again"
        ) from error
    return index


def _method(name: str, catalogue: Catalogue) -> dict[str, str]:
    recipe = catalogue.recipes.get(name)
    return {
        "name": name,
        "page": address("method", name),
        "title": recipe.title if recipe else "",
        "summary": recipe.summary if recipe else "",
    }


def _jobs(
    tables: Sequence[Table], records: Mapping[str, RunRecord], called: Names, catalogue: Catalogue
) -> list[Job]:
    """A job per run, best ranks first."""
    placed: list[tuple[int, str, tuple[str, ...], Table]] = []
    for table in tables:
        placed += [(row.rank, run, row.run_ids, table) for row in table.rows for run in row.run_ids]
        placed += [(len(records), d.run_id, (), table) for d in table.diverged]
    jobs, left = [], MEASURED
    for _, run_id, seeds, table in sorted(placed, key=lambda each: each[:2]):
        record = records[run_id]
        labels = max(1, len(record.label_names))
        size = labels * record.test_images
        left -= size
        recipe = catalogue.recipes.get(record.spec.method)
        jobs.append(
            Job(
                record=record,
                seeds=tuple(other for other in seeds if other != run_id),
                board=called[table.name, table.data],
                bibtex=recipe.bibtex.strip() if recipe else "",
                rows=max(100, LOOKED_AT // (len(records) * labels)),
                measured=left >= 0,
            )
        )
    return jobs


def _write_all(jobs: Sequence[Job], results: Path, folder: Path, cache: Path) -> None:
    workers = min(os.cpu_count() or 1, 8)
    if len(jobs) <= FEW or workers == 1:
        write_runs(jobs, results, folder, cache)
        return
    # A forked process may inherit a lock that one of torch's threads holds; a spawned one cannot.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        # Measuring takes most of the memory: one process does all of it.
        rest = [job for job in jobs if not job.measured]
        parts = [[job for job in jobs if job.measured]]
        parts += [rest[start :: workers * 4] for start in range(workers * 4)]
        for done in [pool.submit(write_runs, p, results, folder, cache) for p in parts]:
            done.result()
