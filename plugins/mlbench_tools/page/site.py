"""Writes the site: a page per run, a page per method and the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mlbench.files import atomic_write
from mlbench.store import Store
from mlbench.types import MlbenchError, StoreError
from mlbench_tools.page.collect import Site
from mlbench_tools.page.derived import Derived, derive
from mlbench_tools.page.index_page import index_page
from mlbench_tools.page.subpages import method_page, run_page
from mlbench_tools.page.templating import MARK, page_name


def write_site(
    site: Site,
    store: Store,
    cache: Path,
    folder: Path,
    count: Callable[[int, int], None] = lambda *_: None,
) -> Path:
    """Write the site and return its index page; ``count`` receives numbers of done and all pages.

    Every page replaces an older one in one step, so a reader never sees half of it. Pages of an
    earlier build whose runs or methods are gone are removed.

    Raises:
        StoreError: a file cannot be written.
    """
    written = set()
    try:
        for name, text in _pages(site, store, cache / "page"):
            with atomic_write(folder / name) as part:
                part.write_text(text, encoding="utf-8", newline="\n")
            written.add(folder / name)
            count(len(written), len(site.records) + len(site.methods) + 1)
        for file in [*folder.glob("run/*.html"), *folder.glob("method/*.html")]:
            if file not in written and MARK in file.read_text(encoding="utf-8", errors="replace"):
                file.unlink()
    except OSError as error:
        raise StoreError(
            f"{error.filename or folder}: the page could not be written ({error.strerror or error})"
            "; free some space or give write permission, then run the command again"
        ) from error
    return folder / "index.html"


def _pages(site: Site, store: Store, cache: Path) -> Iterator[tuple[str, str]]:
    """The name of each page in the folder of the site, and its text; the index is the last one."""
    derived: dict[str, Derived] = {}
    for table, name in zip(site.tables, site.board_names, strict=True):
        seeds = {run_id: row.run_ids for row in table.rows for run_id in row.run_ids}
        for run_id in [*seeds, *(run.run_id for run in table.diverged)]:
            others = [other for other in seeds.get(run_id, ()) if other != run_id]
            found, problem, left = None, "", store.run_folder(run_id)
            try:
                found = derived[run_id] = derive(store, site.records[run_id], cache)
            except MlbenchError as error:
                problem = str(error)
            text = run_page(site, run_id, name, others, found, problem, left)
            yield page_name("run", run_id), text
    for method in site.methods:
        yield page_name("method", method), method_page(site, method)
    yield "index.html", index_page(site, derived)
