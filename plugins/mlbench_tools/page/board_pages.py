"""Boards as the plain data that the index page embeds; short names, as there may be 2,000 rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from mlbench.boards.render import few_images
from mlbench.boards.rows import Row, Table
from mlbench.files import safe_name
from mlbench.metrics.protocols import find
from mlbench.types import RunRecord
from mlbench_tools.page.catalogue import Catalogue
from mlbench_tools.page.protocol_tables import Read, board_values
from mlbench_tools.page.published import Published

Names = Mapping[tuple[str, str], str]
"""(name of a table, digest of its data) -> what the index page calls its data."""

MATRIX = 120
"""Rows of a board beyond which no matrix of wins is shown: it would be read by nobody."""


def names(tables: Sequence[Table]) -> Names:
    """What the index page calls the data of each board; the same for all its tracks."""
    taken = Counter(table.name for table in tables)
    return {
        (t.name, t.data): t.name.removesuffix(f"-{t.track}")
        + (f" {t.data[:8]}" if taken[t.name] > 1 else "")
        for t in tables
    }


def address(kind: str, name: str) -> str:
    """Where a page lies, relative to the index, as a link that opens from disk."""
    return quote(f"{kind}/{safe_name(name)}.html")


def page_file(folder: Path, kind: str, name: str) -> Path:
    """Where a page lies in the folder of the site."""
    return folder / kind / f"{safe_name(name)}.html"


class Site(NamedTuple):
    """What the index page says beside the boards.

    Attributes:
        records: run id -> record, for the citations of data sets.
        catalogue: what plugins say of themselves.
        read: what is known of a run by other protocols.
        published: the literature's numbers.
    """

    records: Mapping[str, RunRecord]
    catalogue: Catalogue
    read: Read
    published: Sequence[Published] = ()


def data(tables: Sequence[Table], site: Site) -> dict[str, Any]:
    """What the index page filters, sorts and plots.

    Args:
        tables: the boards.
        site: what it says beside them.
    """
    called = names(tables)
    places = sorted({place for t in tables for row in t.rows for place, _ in row.latency})
    methods = sorted({row.method for table in tables for row in table.rows})
    recipes = site.catalogue.recipes
    boards = [
        {"set": called[table.name, table.data], **_board(table, places, site)} for table in tables
    ]
    return {
        "places": places,
        "methods": {
            name: {
                "page": address("method", name),
                "cite": recipe.bibtex.strip() if (recipe := recipes.get(name)) else "",
            }
            for name in methods
        },
        "protocols": {
            name: find(name).definition for board in boards for name, _ in board["protocols"]
        },
        "boards": boards,
    }


def _citation(table: Table, site: Site) -> str:
    ids = [run for row in table.rows for run in row.run_ids] + [d.run_id for d in table.diverged]
    card = site.catalogue.cards.get(site.records[ids[0]].spec.dataset) if ids else None
    return card.bibtex.strip() if card else ""


def _papers(table: Table, published: Iterable[Published]) -> list[str]:
    """The literature's data sets that a board is an edition or a part of."""
    named = {table.identity, table.dataset}
    return sorted({row.dataset for row in published if named & {row.dataset, *row.boards}})


def _board(table: Table, places: Sequence[str], site: Site) -> dict[str, Any]:
    values, scored = board_values(table, site.read)
    return {
        "cite": _citation(table, site),
        "papers": _papers(table, site.published),
        "protocols": list(values.items()),
        "track": table.track,
        "known": table.known,
        "images": table.test_images,
        "few": few_images(table),
        "classes": table.classes,
        "left_out": table.left_out,
        "noise": _short(table.training_deviation),
        "labels": list(table.labels or ()),
        "wins": list(table.wins) if len(table.rows) <= MATRIX else [],
        "rows": [
            {**_row(row, places), "by": by} for row, by in zip(table.rows, scored, strict=True)
        ],
        "diverged": [
            {"title": d.title, "error": d.error, "page": address("run", d.run_id)}
            for d in table.diverged
        ],
    }


def _row(row: Row, places: Sequence[str]) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "rank": row.rank,
        "worst": max(row.rank, row.rank_worst),
        "method": row.method,
        "backbone": row.backbone,
        "loss": row.loss,
        "variant": row.variant,
        "seeds": row.seeds,
        "map": _short(row.mAP),
        "low": _short(row.low),
        "high": _short(row.high),
        "sd": _short(row.deviation),
        "cf1": _short(row.CF1),
        "of1": _short(row.OF1),
        "gmacs": _short(row.gmacs),
        "head": _short(row.gmacs_head),
        "params": _short(row.parameters),
        "size": row.image_size,
        "epochs": row.epochs,
        "ms": {places.index(place): _short(ms) for place, ms in row.latency},
        "runs": [[run_id, address("run", run_id)] for run_id in row.run_ids],
    }
    return {name: value for name, value in whole.items() if value is not None}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.8g}")
