"""``mlbench compare``: two runs or two methods, and whether their difference could be chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlbench.cli.console import console
from mlbench.types import RunRecord, SuiteError, Track

if TYPE_CHECKING:
    from mlbench.leaderboard.compare import Comparison, Difference
    from mlbench.leaderboard.rows import Table

SHORTEST = 6
"""Characters that a text must have to be looked for among the beginnings of run ids."""
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
    from mlbench.leaderboard import compare as comparison
    from mlbench.leaderboard.ranks import pooled
    from mlbench.leaderboard.rows import tables
    from mlbench.store import Store

    store = Store(results)
    records = {record.run_id: record for record in store.records()}
    boards = [
        table
        for table in tables(records.values())
        if (dataset is None or table.identity.startswith(dataset))
        and (track is None or table.track == track)
    ]
    sides = _sides((first, second), boards, records)
    board = _board_of(sides[0][0], boards)
    training = pooled([[records[i] for i in row.run_ids] for row in board.rows])
    runs = [comparison.read(side, store) for side in sides]
    found = comparison.compare(runs[0], runs[1], training, resamples)
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        for line in _lines(found):
            console.print(line, markup=False, highlight=False)


def _sides(
    names: tuple[str, str], boards: Sequence[Table], records: Mapping[str, RunRecord]
) -> list[list[RunRecord]]:
    """The runs that each name means; names of methods are looked for on one board."""
    runs = [_run(name, boards) for name in names]
    fitting = [
        board
        for board in boards
        if all(
            run in _ids(board) if run else any(row.method == name for row in board.rows)
            for name, run in zip(names, runs, strict=True)
        )
    ]
    if not all(runs) and len(fitting) != 1:
        for name, run in zip(names, runs, strict=True):
            if run is None and not any(row.method == name for b in boards for row in b.rows):
                known = sorted({row.method for board in boards for row in board.rows})
                raise SuiteError(
                    f"{name!r} is neither a run nor a method here; methods: {', '.join(known)}; "
                    "run ids stand in the last column of `mlbench leaderboard`"
                )
        where = ", ".join(f"{b.identity} {b.track}" for b in fitting) or "no board has both"
        raise SuiteError(
            f"{' and '.join(names)} must be on one board together ({where}); choose it by "
            "--dataset and --track, or give run ids"
        )
    return [
        [records[run]] if run else _row_of(name, fitting[0], records)
        for name, run in zip(names, runs, strict=True)
    ]


def _run(text: str, boards: Sequence[Table]) -> str | None:
    """The run whose id this is, or begins with; None if it is no id."""
    ids = sorted({run_id for board in boards for run_id in _ids(board)})
    found = [run_id for run_id in ids if len(text) >= SHORTEST and run_id.startswith(text)]
    if len(found) > 1:
        raise SuiteError(f"{text} is the beginning of several runs: {', '.join(found)}; say more")
    return found[0] if found else None


def _ids(board: Table) -> set[str]:
    return {run_id for row in board.rows for run_id in row.run_ids}


def _board_of(record: RunRecord, boards: Sequence[Table]) -> Table:
    return next(board for board in boards if record.run_id in _ids(board))


def _row_of(name: str, board: Table, records: Mapping[str, RunRecord]) -> list[RunRecord]:
    rows = [row for row in board.rows if row.method == name]
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
        yield f"{letter}: {side.mAP:.2f} mAP  {side.title}  (runs {', '.join(side.run_ids)})"
    yield ""
    yield f"A - B: {_said(found.over_images)} on other images, the models as they are"
    yield f"       paired bootstrap, {found.resamples} draws of {found.images} images"
    if found.over_training is None:
        yield "       the noise of training is unknown: no row of the board has several seeds"
    else:
        yield f"A - B: {_said(found.over_training)} with the noise of training as well"
        yield f"       sd {found.training_deviation:.2f} between seeds, over the rows of the board"
    yield ""
    moved = [one for one in found.classes if one.moved]
    yield (
        f"{len(moved)} of {len(found.classes)} classes moved (Holm over classes):"
        if moved
        else f"None of {len(found.classes)} classes moved beyond chance; the largest differences:"
    )
    for one in moved or found.classes[:LISTED]:
        yield (
            f"  {one.name}: {one.first:.1f} and {one.second:.1f}, {_said(one)}, "
            f"{one.positives} positives"
        )
    yield ""
    yield "Settings that differ:" if found.settings else "No setting differs."
    for name, mine, other in found.settings:
        yield f"  {name}: {mine} and {other}"


def _said(one: Difference) -> str:
    return f"{one.difference:+.2f} [{one.low:.2f},{one.high:.2f}], p = {one.p:.2g}"
