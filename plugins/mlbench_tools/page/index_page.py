"""The index page: boards as embedded data, the literature's results and the methods.

The names of the embedded data are short, as a board may have 2,000 rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from mlbench.boards.render import OTHER_CODE, RATIO, REMARKS, UNTUNED, few_images
from mlbench.boards.render import columns as columns_of
from mlbench.boards.rows import Row, Table
from mlbench_tools.page.collect import Site
from mlbench_tools.page.derived import Derived
from mlbench_tools.page.literature import literature_lines
from mlbench_tools.page.templating import address, render
from mlbench_tools.scoring.protocols import find

CANONICAL = ("canonical", "ap")
"""Protocols whose numbers are on a board already."""
FIELDS = {
    "map": "mAP",
    "low": "low",
    "high": "high",
    "sd": "deviation",
    "cf1": "CF1",
    "of1": "OF1",
    "gmacs": "gmacs",
    "head": "gmacs_head",
    "params": "parameters",
}
"""Name in the scripts -> field of a row."""
MATRIX = 120
"""Largest number of rows with a readable matrix of wins, and the number of rows that a board shows
where scripts are off."""


def index_page(site: Site, derived: Mapping[str, Derived]) -> str:
    """The text of the index page."""
    return render(
        "index.html",
        tables=site.tables,
        runs=len(site.records),
        data=_data(site, derived),
        plain=[
            (table.title, [column for column in columns_of(table) if not column.empty])
            for table in site.tables
        ],
        longest=MATRIX,
        methods=[
            {"name": name, "page": address("method", name), "recipe": site.recipes.get(name)}
            for name in site.methods
        ],
        published=literature_lines(site, derived),
    )


def _data(site: Site, derived: Mapping[str, Derived]) -> dict[str, Any]:
    """The data that the scripts of the index page filter, sort and plot."""
    rows = [row for table in site.tables for row in table.rows]
    places = sorted({place for row in rows for place in _times(row)})
    boards = [
        {"set": name, **_board(table, places, site, derived)}
        for table, name in zip(site.tables, site.board_names, strict=True)
    ]
    recipes = site.recipes
    return {
        "places": places,
        "ratio": RATIO,
        "remarks": REMARKS,
        "methods": {
            name: {
                "page": address("method", name),
                "cite": recipes[name].bibtex.strip() if name in recipes else "",
            }
            for name in site.methods
        },
        "protocols": {
            name: find(name).definition for board in boards for name, _ in board["protocols"]
        },
        "boards": boards,
    }


def _board(
    table: Table, places: Sequence[str], site: Site, derived: Mapping[str, Derived]
) -> dict[str, Any]:
    scored = [_protocol_means([derived.get(run) for run in row.run_ids]) for row in table.rows]
    protocols: dict[str, dict[str, None]] = {}
    for means in scored:
        for name, values in means.items():
            protocols.setdefault(name, {}).update(dict.fromkeys(values))
    card = site.cards.get(table.dataset)
    named = {table.identity, table.dataset}
    return {
        "cite": card.bibtex.strip() if card else "",
        "papers": sorted({r.dataset for r in site.published if named & {r.dataset, *r.boards}}),
        "protocols": [(name, list(values)) for name, values in protocols.items()],
        "track": table.track,
        "known": table.known,
        "code": "" if table.current else OTHER_CODE,
        "images": table.test_images,
        "image": table.images,
        "untuned": f"{UNTUNED}: {'; '.join(table.untuned)}." if table.untuned else "",
        "few": few_images(table),
        "classes": table.classes,
        "left_out": table.left_out,
        "noise": _short(table.training_deviation),
        "labels": list(table.labels or ()),
        "wins": list(table.wins) if len(table.rows) <= MATRIX else [],
        "rows": [
            {**_row(row, places), "by": _by(means, protocols), "made": _made(row, site)}
            for row, means in zip(table.rows, scored, strict=True)
        ],
        "diverged": [
            {"title": run.title, "error": run.error, "page": address("run", run.run_id)}
            for run in table.diverged
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
        **{name: _short(getattr(row, field)) for name, field in FIELDS.items()},
        "start": row.pretraining or None,
        "size": row.image_size,
        "epochs": row.epochs,
        "ms": {places.index(place): time for place, time in _times(row).items()},
        "runs": [[run_id, address("run", run_id)] for run_id in row.run_ids],
    }
    return {name: value for name, value in whole.items() if value is not None}


def _made(row: Row, site: Site) -> list[str]:
    """Date, commit and command of the runs of a row, once if several runs share them."""
    records = [site.records[run_id] for run_id in row.run_ids]
    return sorted(
        {f"{r.began.date()}, commit {r.commit or 'unknown'}: {r.command}" for r in records}
    )


def _times(row: Row) -> dict[str, tuple[float | None, str]]:
    """Place and batch size -> milliseconds and a remark; of the best batch, the time an image."""
    found: dict[str, tuple[float | None, str]] = {}
    for one in row.speeds:
        found[f"{one.place}, batch 1"] = _short(one.ms), one.remark
        if one.ms_16 is not None:
            found[f"{one.place}, batch 16"] = _short(one.ms_16), one.remark
        if one.images_per_second is not None:
            image = _short(1000 / one.images_per_second)
            found[f"{one.place}, one image of the best batch"] = image, one.remark
    return found


def _protocol_means(runs: Sequence[Derived | None]) -> dict[str, dict[str, float]]:
    """Protocol -> value -> its mean over the seeds of a row; only what all seeds have."""
    seeds = [run.protocols for run in runs if run is not None]
    if not seeds or len(seeds) < len(runs):
        return {}
    return {
        name: {
            value: float(f"{fmean(seed[name][value] for seed in seeds):.5g}")
            for value in values
            if not value.startswith("classes_") and all(value in seed[name] for seed in seeds)
        }
        for name, values in seeds[0].items()
        if name not in CANONICAL and all(name in seed for seed in seeds)
    }


def _by(
    means: Mapping[str, Mapping[str, float]], protocols: Mapping[str, Mapping[str, None]]
) -> list[list[float | None] | None]:
    """A row's values by each protocol of its board; None for a protocol that did not score it."""
    return [
        [means[name].get(value) for value in values] if name in means else None
        for name, values in protocols.items()
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.8g}")
