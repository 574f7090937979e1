"""``mlbench page DIR``: boards, runs and methods as a site that opens from disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench import registry
from mlbench.cli.console import cache_folder, errors
from mlbench.cli.show import GIVEN
from mlbench.types import DatasetCard, PluginError, Recipe, RunRecord, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.boards.rows import Table
    from mlbench_tools.page.catalogue import Catalogue


def page(
    folder: Annotated[Path, typer.Argument(help="Where to write the site; open its index.html.")],
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None,
        typer.Option(help="Only this edition, e.g. coco-mini; if none, those that begin so."),
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Only this track.")] = None,
) -> None:
    """Write boards, runs and methods as pages to look at."""
    from mlbench.boards.rows import select
    from mlbench.cli import boards

    found = boards.read(results)
    shown = select(found.tables, dataset, track)
    if not shown:
        raise SuiteError(
            f"no record in {results} fits; `mlbench run` makes some, --results names another store"
        )
    index = write_page(shown, found.records, results, folder)
    errors.print(f"page: {index}", markup=False, highlight=False, soft_wrap=True)


def write_page(
    tables: list[Table], records: Iterable[RunRecord], results: Path, folder: Path
) -> Path:
    """Write the boards, their runs and methods as a site; its index page.

    Args:
        tables: the boards to show.
        records: of the whole store; those of other boards are left out.
        results: the store's root.
        folder: of the site.

    Raises:
        StoreError: a file of published scores is malformed, or the site cannot be written.
    """
    from mlbench_tools.page.published import load
    from mlbench_tools.page.site import write_site

    ids = {run for t in tables for row in t.rows for run in row.run_ids}
    ids |= {run.run_id for t in tables for run in t.diverged}
    shown = [record for record in records if record.run_id in ids]
    return write_site(
        tables,
        shown,
        folder,
        results=results,
        cache=cache_folder(),
        catalogue=collect(shown),
        published=load(results / "published"),
    )


def collect(records: Iterable[RunRecord]) -> Catalogue:
    """Recipes, options and cards of all methods and data sets; what is not installed is named."""
    from mlbench_tools.page.catalogue import Catalogue

    made = list(records)
    recipes: dict[str, Recipe] = {}
    options: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for method in {record.spec.method for record in made}:
        try:
            recipes[method] = registry.find("recipe", method).load()
            head = registry.find("head", recipes[method].settings.head).load()
            options[method] = registry.options(head, GIVEN)
        except PluginError as error:
            problems[method] = str(error)
    cards, unknown = cards_of({record.spec.dataset for record in made})
    return Catalogue(recipes, options, cards, {**problems, **unknown})


def cards_of(datasets: Iterable[str]) -> tuple[dict[str, DatasetCard], dict[str, str]]:
    """Of data sets their cards, where they have one, and why nothing is known of the others."""
    cards: dict[str, DatasetCard] = {}
    problems: dict[str, str] = {}
    for dataset in datasets:
        try:
            card = getattr(registry.find("dataset", dataset).load(), "card", None)
        except PluginError as error:
            problems[dataset] = str(error)
        else:
            if isinstance(card, DatasetCard):
                cards[dataset] = card
    return cards, problems
