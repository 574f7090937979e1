"""Read the boards of a store, print them, and write them as files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path, PurePath
from typing import NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mlbench.boards import pareto, render
from mlbench.boards.markup import one_line
from mlbench.boards.rows import Table, tables
from mlbench.cli.console import console, errors
from mlbench.store import Store
from mlbench.text import count
from mlbench.types import RunRecord, SuiteError, Track

ALWAYS = ("#", "method", "backbone", "loss", "variant", "mAP", "run")
"""Columns that are never left out."""
OTHERS = (
    *("latency", "GMACs", "ties", "interval", "params", "Pareto", "CF1", "OF1", "seeds"),
    *("size", "epochs", "batch 16", "images/s", "weights from"),
)
"""The other columns; later ones are left out first."""
SHARED = ("backbone", "loss", "variant", "size", "epochs")
"""Columns that a line below the board replaces if all rows agree."""
FOLDED = {
    "method": 16,
    "backbone": 15,
    "loss": 12,
    "variant": 10,
    "Pareto": 14,
    "run": 8,
    "weights from": 16,
}
"""Column whose cells may take several lines -> its width if space is short; a run id has 8."""


class Boards(NamedTuple):
    """A store, all its records that can be used, and all its boards."""

    store: Store
    records: list[RunRecord]
    tables: list[Table]

    def select(self, dataset: str | None, track: Track | None) -> list[Table]:
        """Select boards by data set and track, None for all; keep their order.

        ``dataset`` names an edition; if there is none of this name, a data set as in ``--datasets``
        (``manifest:photos.csv``), or the prefix of editions.

        Raises:
            SuiteError: no board matches.
        """
        name = dataset or ""
        kind, colon, file = name.partition(":")
        edition = re.compile(rf"{re.escape(PurePath(file).stem)}-[0-9a-f]{{8}}(-|$)")

        def matches(table: Table) -> bool:
            if colon and kind == table.dataset.partition(":")[0]:
                return name == table.dataset or edition.match(table.identity) is not None
            return table.identity.startswith(name)

        exact = [table for table in self.tables if table.identity == dataset]
        chosen = exact or [table for table in self.tables if matches(table)]
        if found := [table for table in chosen if track in (None, table.track)]:
            return found
        raise SuiteError(
            f"no record in {self.store.root} matches; make one with `mlbench run`, or name another "
            "folder with --results"
        )


def read(results: Path) -> Boards:
    """Read all boards of a store; print why records or predictions are left out."""
    store = Store(results)
    records, problems = store.read_all()
    _print_problems(f"not on the board: {problem}" for problem in problems)
    return Boards(store, *make_tables(store, records))


def make_tables(store: Store, records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[Table]]:
    """The records with matching predictions, one per run, and their boards; prints the others."""
    listed = list(records)
    influences, problems = store.influences(listed)
    _print_problems(f"not on the board: {problem}" for problem in problems)
    kept = [record for record in listed if record.run_id in influences]
    _print_problems(
        f"run {record.run_id} has no usable predictions ({store.predictions_file(record)}), so no "
        "interval and no rank; restore the file, or delete the record and run again"
        for record in kept
        if influences[record.run_id] is None and record.scores is not None
    )
    costs, unreadable = store.read_costs()
    _print_problems(map(str, unreadable))
    return kept, tables(kept, lambda record: influences[record.run_id], costs)


def _print_problems(texts: Iterable[str]) -> None:
    for text in texts:
        errors.print(text, style="red")


def write(boards: Boards) -> None:
    """Write all boards as files next to the records; write nothing if there are no boards.

    Raises:
        StoreError: a file cannot be written.
    """
    if boards.tables:
        folder = boards.store.root / "leaderboards"
        render.write(boards.tables, folder)
        errors.print(f"written to {folder}")


def column_names(text: str | None) -> list[str]:
    """Read a list of columns such as ``mAP,GMACs``.

    Raises:
        SuiteError: there is no such column.
    """
    names = {name.lower(): name for name in (*ALWAYS, *OTHERS)}
    given = [name.strip() for name in text.split(",")] if text else []
    for name in given:
        if name.lower() not in names:
            raise SuiteError(f"--columns: {name!r} is not one of {', '.join(names.values())}")
    return [names[name.lower()] for name in given]


def show(
    chosen: Sequence[Table],
    results: Path,
    run_ids: Set[str] | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Print boards, limited to the rows of some runs and to some columns if these are given."""
    if chosen:
        console.print(terminal(chosen, console.width, columns, run_ids))
    for table in chosen:
        if (drawn := len(_drawn(table, run_ids))) < len(table.rows):
            errors.print(
                f"{table.name}: {drawn} of {count(len(table.rows), 'row')} shown, ranked "
                f"among all of them; `mlbench leaderboard --results {shlex.quote(str(results))}` "
                "prints the whole board"
            )


def _drawn(table: Table, run_ids: Set[str] | None) -> list[int]:
    """The places of the rows that have one of these runs; None for any."""
    wanted = table.run_ids if run_ids is None else run_ids
    return [i for i, row in enumerate(table.rows) if not wanted.isdisjoint(row.run_ids)]


def terminal(
    tables: Sequence[Table], width: int, chosen: Sequence[str] = (), run_ids: Set[str] | None = None
) -> RenderableType:
    """Make a rich table of each board, no wider than ``width`` characters.

    The columns are those ``chosen``, by names without units; the last are left out first. Rows, and
    runs that are not ranked, are those of ``run_ids``; their cells and notes tell of whole boards.
    """
    return Group(*(part for one in tables for part in _board(one, width, chosen, run_ids)))


def _board(
    table: Table, width: int, chosen: Sequence[str], run_ids: Set[str] | None
) -> Iterator[RenderableType]:
    rows = _drawn(table, run_ids)
    drawn = (c._replace(cells=[c.cells[i] for i in rows]) for c in render.columns(table))
    given = {_key(column): column for column in drawn}
    equal = (n for n in SHARED if given[n].constant and not given[n].empty)
    shared = [] if chosen else list(equal)
    always = ("run",) if chosen else tuple(n for n in ALWAYS if n not in shared)
    others = chosen or tuple(n for n in OTHERS if n not in shared)
    widths = _fit({n: c for n, c in given.items() if not c.empty}, always, others, width)
    order = [*dict.fromkeys((*chosen, "run"))] if chosen else list(given)
    grid = RichTable(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    kept = [given[name] for name in order if name in widths]
    for column in kept:
        heading = Text(column.name.replace(" (", "\n("))
        grid.add_column(heading, justify=column.side, overflow="fold", width=widths[_key(column)])
    for row in zip(*(column.cells for column in kept), strict=True):
        grid.add_row(*(Text(one_line(cell)) for cell in row))
    asked = (run for run in table.diverged if run_ids is None or run.run_id in run_ids)
    told = table.model_copy(update={"diverged": tuple(asked)})
    lines = [*_cheapest(table), *render.notes(told)]
    if shared:
        said = [("" if n == "variant" else f"{n} ") + given[n].cells[0] for n in shared]
        lines.insert(0, f"All rows here: {', '.join(said)}.")
    if missing := [name for name in others if name not in widths and not given[name].empty]:
        lines.insert(
            0,
            f"Left out to fit {width} columns: {', '.join(missing)}. "
            "`mlbench leaderboard --columns` chooses.",
        )
    yield Text(one_line(table.heading), style="bold")
    if rows:
        yield grid
        yield Text("")
    yield from (Text(f"- {one_line(line)}") for line in lines)
    yield Text("")


def _cheapest(table: Table) -> list[str]:
    """Name the cheapest of the rows within a point of the best, unless that is the best itself."""
    fronts = pareto.fronts(table.rows)
    if not fronts:
        return []
    complete = [front for front in fronts if front.cost == "latency" and None not in front.values]
    front = complete[0] if len(complete) == 1 else fronts[0]
    best = max(row.mAP for row in table.rows)
    costs = zip(front.values, table.rows, strict=True)
    near = [(cost, -row.mAP, i) for i, (cost, row) in enumerate(costs) if cost is not None]
    cost, score, i = min((one for one in near if -one[1] >= best - 1), default=(0.0, -best, 0))
    if score == -best:
        return []
    row, unit = table.rows[i], "ms" if front.cost == "latency" else front.cost
    return [
        f"Cheapest by {front.cost} within a point of the best mAP: {row.title}, mAP {row.mAP:.2f}, "
        f"{cost:.2f} {unit} (run {row.run_ids[0][:8]})."
    ]


def _key(column: render.Column) -> str:
    """The name of a column without its unit."""
    return column.name.partition(" (")[0]


def _fit(
    given: dict[str, render.Column], always: Sequence[str], others: Sequence[str], width: int
) -> dict[str, int]:
    """Return the columns that fit and their widths, with one space between columns."""

    def total() -> int:
        return sum(widths.values()) + len(widths) - 1

    whole = {
        name: max(map(len, (*column.name.split(" ("), *map(one_line, column.cells))), default=0)
        for name, column in given.items()
    }
    least = {name: min(n, FOLDED.get(name, n)) for name, n in whole.items()}
    widths = {name: least[name] for name in always if name in given}
    while total() > width and max(widths.values()) > 4:
        widest = max((name for name in widths if name != "run"), key=lambda name: widths[name])
        widths[widest] -= 1
    for name in others:
        if name in given and total() + 1 + least[name] <= width:
            widths[name] = least[name]
    for name in FOLDED:
        if name in widths:
            widths[name] += min(whole[name] - widths[name], width - total())
    return widths
