"""``mlbench page DIR``: boards, runs and methods as a site that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlbench import registry
from mlbench.cli.console import Edition, OnlyTrack, Results, cache_folder, errors
from mlbench.types import PluginError

if TYPE_CHECKING:
    from mlbench.boards.rows import Table
    from mlbench.types import DatasetCard, Recipe, RunRecord
    from mlbench_tools.page.literature import PublishedResult


@dataclass(frozen=True)
class Site:
    """The contents of all pages.

    Attributes:
        tables: the boards.
        records: run id -> record, of every run on the boards.
        recipes: method -> its recipe.
        options: method -> the options of its head with their defaults.
        cards: data set -> its card.
        problems: name -> why its plugin could not be loaded.
        published: results of the literature.
    """

    tables: Sequence[Table]
    records: Mapping[str, RunRecord]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cards: Mapping[str, DatasetCard] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    published: Sequence[PublishedResult] = ()

    @property
    def board_names(self) -> list[str]:
        """The index page's name of each board's data, the same for all tracks."""
        return [t.data_name + ("" if t.current else ", made by other code") for t in self.tables]

    @property
    def methods(self) -> list[str]:
        """The methods of all runs, by name."""
        return sorted({record.spec.method for record in self.records.values()})


def page(
    folder: Annotated[Path, typer.Argument(help="Where to write the site; open its index.html.")],
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
) -> None:
    """Write boards, runs and methods as web pages."""
    from mlbench.cli import show_boards
    from mlbench.cli.progress import Reminder
    from mlbench.executors.run_status import Followed
    from mlbench.store import Store
    from mlbench_tools.page.literature import load
    from mlbench_tools.page.site import write_site

    progress = Followed("", 0)
    with Reminder("page", lambda: [progress.now.text]):
        progress.phase("records")
        found = show_boards.read(results)
        tables = found.select(dataset, track)
        ids = {run_id for table in tables for run_id in table.run_ids}
        records = {record.run_id: record for record in found.records if record.run_id in ids}
        site = collect(tables, records, load())
        progress.phase("pages")
        index = write_site(site, Store(results), cache_folder(), folder, progress.count)
    errors.print(f"page: {index}")


def collect(
    tables: Sequence[Table],
    records: Mapping[str, RunRecord],
    published: Sequence[PublishedResult] = (),
) -> Site:
    """Collect recipes, options and cards of the methods and data sets of some runs."""
    recipes: dict[str, Recipe] = {}
    options: dict[str, dict[str, Any]] = {}
    cards: dict[str, DatasetCard] = {}
    problems: dict[str, str] = {}
    for method in {record.spec.method for record in records.values()}:
        try:
            recipes[method] = recipe = registry.find("recipe", method).load()
            head = registry.find("head", recipe.settings.head).load()
            options[method] = registry.options(head)
        except PluginError as error:
            problems[method] = str(error)
    for dataset in {record.spec.dataset for record in records.values()}:
        try:
            card = registry.dataset_card(registry.find("dataset", dataset))
        except PluginError as error:
            problems[dataset] = str(error)
        else:
            if card:
                cards[dataset] = card
    return Site(tables, records, recipes, options, cards, problems, published)
