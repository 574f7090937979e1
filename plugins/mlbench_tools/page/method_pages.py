"""The page of a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from mlbench.boards.rows import Table
from mlbench.types import Recipe
from mlbench_tools.page.board_pages import Names, page_file
from mlbench_tools.page.catalogue import Catalogue
from mlbench_tools.page.facts import Fact, facts
from mlbench_tools.page.templating import OTHERS, render


def write_method(
    name: str, tables: Sequence[Table], names: Names, catalogue: Catalogue, folder: Path
) -> None:
    """Write a method's page.

    Args:
        name: of the method.
        tables: all boards.
        names: their names in the index page.
        catalogue: what plugins say of themselves.
        folder: of the site.
    """
    recipe = catalogue.recipes.get(name)
    page = render(
        "method.html",
        OTHERS,
        "../",
        name=name,
        recipe=recipe,
        problem=catalogue.problems.get(name, "No recipe of this name is installed here."),
        boards=[
            {
                "title": f"{names[table.name, table.data]}, {table.track} track",
                "link": urlencode({"set": names[table.name, table.data], "track": table.track}),
                "size": len(table.rows),
                "rows": mine,
            }
            for table in tables
            if (mine := [row for row in table.rows if row.method == name])
        ],
        options=facts(catalogue.options.get(name, {})),
        published=facts(recipe.settings.model_dump(mode="json", exclude_defaults=True))
        if recipe
        else [],
        changed=_changed(recipe) if recipe else [],
    )
    page_file(folder, "method", name).write_text(page, encoding="utf-8", newline="\n")


def _changed(recipe: Recipe) -> list[tuple[str, list[Fact]]]:
    plain = recipe.model_dump(mode="json", include={"per_dataset", "dataset_options", "tuned"})
    titles = {
        "per_dataset": "Other settings on {}",
        "dataset_options": "Options of the data set {}",
        "tuned": "Tuned for the {} track under the equal budget",
    }
    return [
        (titles[kind].format(name), facts(changes))
        for kind, groups in plain.items()
        for name, changes in groups.items()
    ]
