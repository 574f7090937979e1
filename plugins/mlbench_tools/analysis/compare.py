"""``mlbench compare``: two runs or two methods, and whether their difference could be chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.boards.text import chance
from mlbench.cli.console import console, errors
from mlbench.text import count, plural
from mlbench.types import RunRecord, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.boards.rows import Row, Table
    from mlbench.store import Store
    from mlbench_tools.analysis.comparison import ClassDifference, Comparison, Difference

LISTED = 5
"""Classes that are named where none moved."""


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A run id, its beginning, or a method.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    results: Annotated[Path, typer.Option(help="The store.")] = Path("results"),
    dataset: Annotated[
        str | None, typer.Option(help="Methods of this data set's board, e.g. coco-mini.")
    ] = None,
    track: Annotated[Track | None, typer.Option(help="Methods of this track's board.")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 1000,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Compare two runs, or two methods by all their seeds, on the images both were scored on."""
    from mlbench.boards.ranks import pooled
    from mlbench.boards.rows import select, tables
    from mlbench.store import Store
    from mlbench_tools.analysis import comparison

    store = Store(results)
    records = {record.run_id: record for record in store.records()}
    boards = select(tables(records.values()), dataset, track)
    methods = {row.method for board in boards for row in board.rows}
    asked = [name if name in methods else _run(name, store, boards) for name in (first, second)]
    sides = _sides(asked, boards, records)
    board = _board_of(sides[0][0], boards)
    rows = [[records[i] for i in row.run_ids] for row in board.rows]
    noise = pooled(rows)
    runs = [comparison.read(side, store) for side in sides]
    found = comparison.compare(runs[0], runs[1], noise, resamples)
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        for line in _lines(found):
            console.print(line, markup=False, highlight=False)


def _run(text: str, store: Store, boards: Sequence[Table]) -> RunRecord:
    """The run that a text means that is no method of these boards."""
    run = store.find(text)
    if run is None:
        known = sorted({row.method for board in boards for row in board.rows})
        raise SuiteError(
            f"{text!r} is neither a run nor a method here; methods: {', '.join(known)}; "
            "run ids stand in the last column of `mlbench leaderboard`"
        )
    if not any(run.run_id in _ids(board) for board in boards):
        raise SuiteError(
            f"run {run.run_id} ({run.identity}, {run.spec.track}, {run.status}) has no row on the "
            "boards that were asked for; choose others by --dataset and --track, or another run"
        )
    return run


def _sides(
    asked: Sequence[str | RunRecord], boards: Sequence[Table], records: Mapping[str, RunRecord]
) -> list[list[RunRecord]]:
    """The runs that each name means; names of methods are looked for on one board."""
    if all(isinstance(one, RunRecord) for one in asked):
        return [[one] for one in asked if isinstance(one, RunRecord)]
    fitting = [board for board in boards if all(_rows(one, board) for one in asked)]
    said = " and ".join(one if isinstance(one, str) else one.run_id for one in asked)
    if not fitting:
        raise SuiteError(f"no board has both {said}; choose others, or give run ids")
    if len(fitting) > 1:
        raise SuiteError(
            f"{said} are together on several boards: {', '.join(b.name for b in fitting)}; choose "
            "one by --dataset and --track, or give run ids"
        )
    rows = [_rows(one, fitting[0]) for one in asked]
    rows = _alike(rows[0], rows[1]) or rows
    return [
        [one] if isinstance(one, RunRecord) else _only(one, found, fitting[0], records)
        for one, found in zip(asked, rows, strict=True)
    ]


def _alike(first: Sequence[Row], second: Sequence[Row]) -> list[list[Row]]:
    """Of several pairs of rows the only one of a single backbone and loss, which is told."""
    pairs = [(a, b) for a in first for b in second if (a.backbone, a.loss) == (b.backbone, b.loss)]
    if len(first) == len(second) == 1 or len(pairs) != 1:
        return []
    errors.print(
        f"of {count(len(first), 'row')} of {first[0].method} and {count(len(second), 'row')} of "
        f"{second[0].method}, those with {pairs[0][0].backbone} and {pairs[0][0].loss} are "
        "compared; run ids choose others",
        markup=False,
        highlight=False,
    )
    return [[row] for row in pairs[0]]


def _rows(one: str | RunRecord, board: Table) -> list[Row]:
    """The rows of a method, or that of a run."""
    if isinstance(one, RunRecord):
        return [row for row in board.rows if one.run_id in row.run_ids]
    return [row for row in board.rows if row.method == one]


def _ids(board: Table) -> set[str]:
    return {run_id for row in board.rows for run_id in row.run_ids}


def _board_of(record: RunRecord, boards: Sequence[Table]) -> Table:
    return next(board for board in boards if record.run_id in _ids(board))


def _only(
    name: str, rows: Sequence[Row], board: Table, records: Mapping[str, RunRecord]
) -> list[RunRecord]:
    if len(rows) > 1:
        listed = "; ".join(
            f"{row.run_ids[0]} is {row.backbone}, {row.loss} {row.variant}".strip() for row in rows
        )
        raise SuiteError(
            f"{board.identity}, {board.track} track, has {len(rows)} rows of {name}: {listed}; "
            "give a run id instead"
        )
    return [records[run_id] for run_id in rows[0].run_ids]


def _lines(found: Comparison) -> Iterator[str]:
    for letter, side in (("A", found.first), ("B", found.second)):
        yield f"{letter}: {side.mAP:.2f} mAP  {side.title}  {_runs(side.run_ids)}"
    yield ""
    if found.equal:
        yield "The predictions of A and B are equal, score by score: nothing is left to test."
    else:
        yield from _differences(found)
    yield ""
    yield "Settings that differ:" if found.settings else "No setting differs."
    for name, mine, other in found.settings:
        yield f"  {name}: {mine} and {other}"


def _differences(found: Comparison) -> Iterator[str]:
    yield f"A - B: {_said(found.over_images)} on other images, the models as they are"
    images = count(found.images, "image")
    yield f"       paired bootstrap, {count(found.resamples, 'draw')} of {images}"
    if found.over_training is None:
        yield "       the noise of training is unknown: no row of the board has several seeds"
    else:
        yield f"A - B: {_said(found.over_training)} with the noise of training as well"
        deviations = " and ".join(f"{sd:.2f}" for sd in dict.fromkeys(found.training_deviations))
        yield f"       sd {deviations} between seeds, over the rows of the board"
    yield ""
    moved = [one for one in found.classes if one.moved]
    among = f"{len(found.classes)} {'class' if len(found.classes) == 1 else 'classes'}"
    yield (
        f"{len(moved)} of {among} moved (Holm over classes):"
        if moved
        else f"None of {among} moved beyond chance (p by Holm over the classes, intervals of each "
        "class alone); the largest differences:"
    )
    for one in moved or found.classes[:LISTED]:
        yield f"  {one.name}: {one.first:.1f} and {one.second:.1f}, {_said(one)}, {_of(one)}"


def _of(one: ClassDifference) -> str:
    few = ": too few to rely on the interval and p" if one.few else ""
    return f"{count(one.positives, 'positive')}{few}"


def _runs(run_ids: Sequence[str]) -> str:
    return f"({plural(len(run_ids), 'run')} {', '.join(run_ids)})"


def _said(one: Difference) -> str:
    return f"{one.difference:+.2f} [{one.low:.2f},{one.high:.2f}], p {chance(one.p)}"
