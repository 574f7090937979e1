"""``mlbench compare``: two runs or two methods, and whether their difference could be chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json

from mlbench.cli.console import AsJson, Edition, OnlyTrack, Results, console, errors
from mlbench.text import count, plural
from mlbench.types import SuiteError

if TYPE_CHECKING:
    from mlbench.boards.rows import Row, Table
    from mlbench.store import Store
    from mlbench.types import RunRecord
    from mlbench_tools.analysis.comparison import Difference, PairedComparison

LISTED = 5
"""Number of classes that are listed if none moved."""
WINS: Any = {"wins": True, "rows": {"__all__": {"title", "rank", "rank_worst", "run_ids"}}}
"""Fields of a board's JSON besides its name."""


def compare(
    first: Annotated[
        str | None, typer.Argument(metavar="A", help="A run id or its beginning, or a method.")
    ] = None,
    second: Annotated[str | None, typer.Argument(metavar="B", help="The same.")] = None,
    results: Results = Path("results"),
    dataset: Edition = None,
    track: OnlyTrack = None,
    resamples: Annotated[int, typer.Option(min=100, help="Draws of the bootstrap.")] = 1000,
    json: AsJson = False,
) -> None:
    """Compare two runs, or two methods over all their seeds, on the same test images.

    Without A and B, print which rows of a board are significantly better than which.
    """
    from mlbench.cli import show_boards

    found = show_boards.read(results)
    store, records = found.store, {record.run_id: record for record in found.records}
    boards = found.select(dataset, track)
    if first is None and json:
        found_wins = [{"name": board.name, **board.model_dump(include=WINS)} for board in boards]
        typer.echo(to_json(found_wins, indent=1))
        return
    if first is None:
        for board in boards:
            _print([f"{board.name}:", *win_matrix(board), ""])
        return
    if second is None:
        raise SuiteError("name two runs or methods to compare, or none for a whole board")
    from mlbench_tools.analysis.comparison import compare_runs

    methods = {row.method for board in boards for row in board.rows}
    asked = [name if name in methods else _run(name, store, boards) for name in (first, second)]
    sides = _sides(asked, boards, records)
    _assert_same_code([run for runs, _ in sides for run in runs])
    rows = [[[records[run] for run in row.run_ids] for row in board.rows] for _, board in sides]
    compared = compare_runs(sides[0][0], sides[1][0], rows, store, resamples)
    if json:
        typer.echo(compared.model_dump_json(indent=1))
    else:
        _print(_lines(compared))


def win_matrix(board: Table) -> list[str]:
    """Lines that say which rows of a board are better than which, by a character for each pair.

    A line begins with the row's number, which is also its column's, and ends with its title and
    its rank, with the number of rows that are neither better nor worse.
    """
    width = len(str(len(board.rows)))
    numbers = [str(i + 1).rjust(width) for i in range(len(board.rows))]
    header = [" " * width + " " + "".join(digits) for digits in zip(*numbers, strict=True)]
    lines = [
        f"{number} {wins} {row.title} (# {row.rank}, {count(row.rank_worst - row.rank, 'tie')})"
        for number, wins, row in zip(numbers, board.wins, board.rows, strict=True)
    ]
    legend = "+ significantly better than that row, - worse, = cannot be told apart"
    return [*header, *lines, legend]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False)


# ------------------------------------------------------------------------------ names -> two sides
def _run(text: str, store: Store, boards: Sequence[Table]) -> RunRecord:
    """The run that a text names; raise SuiteError if it names none on these boards."""
    run = store.find(text)
    if run is None:
        known = sorted({row.method for board in boards for row in board.rows})
        raise SuiteError(
            f"{text!r} is neither a run nor a method here; methods: {', '.join(known)}; "
            "run ids are in the last column of `mlbench leaderboard`"
        )
    if not any(_rows(run, board) for board in boards):
        raise SuiteError(
            f"run {run.run_id} ({run.identity}, {run.spec.track}, {run.status}) has no row on the "
            "selected boards; choose others by --dataset and --track, or another run"
        )
    return run


def _sides(
    asked: Sequence[str | RunRecord], boards: Sequence[Table], records: Mapping[str, RunRecord]
) -> list[tuple[list[RunRecord], Table]]:
    """The runs that each name means, and their board; for methods the one that has both."""
    runs = [one for one in asked if not isinstance(one, str)]
    if len(runs) == len(asked):
        return [([one], next(board for board in boards if _rows(one, board))) for one in runs]
    names = " and ".join(one if isinstance(one, str) else one.run_id for one in asked)
    fitting = [board for board in boards if all(_rows(one, board) for one in asked)]
    if len(fitting) != 1:
        several = f"several boards have both {names}: {', '.join(board.name for board in fitting)}"
        problem = several if fitting else f"no board has both {names}"
        raise SuiteError(f"{problem}; choose one by --dataset and --track, or give run ids")
    pair = _pair(_rows(asked[0], fitting[0]), _rows(asked[1], fitting[0]))
    return [
        ([records[run_id] for run_id in row.run_ids] if isinstance(one, str) else [one], fitting[0])
        for one, row in zip(asked, pair, strict=True)
    ]


def _assert_same_code(runs: Sequence[RunRecord]) -> None:
    """Warn of runs that other code made, and refuse to compare them with runs of this code."""
    from mlbench.numbers import outdated

    old = [run for run in runs if outdated(run.numbers)]
    if not old:
        return
    ids, reason = ", ".join(run.run_id for run in old), outdated(old[0].numbers)
    text = f"{plural(len(old), 'run')} {ids} made by other code ({reason})"
    if len(old) < len(runs):
        again = "`mlbench repeat` and its record"
        raise SuiteError(
            f"{text}: a difference to runs of this code would not be the methods'; make run "
            f"{old[0].run_id} again with {old[0].command if old[0].spec.checkpoint else again}"
        )
    errors.print(f"warning: {text}", style="yellow")


def _rows(one: str | RunRecord, board: Table) -> list[Row]:
    """The board's rows of a method, or of a run."""
    if not isinstance(one, str):
        return [row for row in board.rows if one.run_id in row.run_ids]
    return [row for row in board.rows if row.method == one]


def _pair(first: Sequence[Row], second: Sequence[Row]) -> tuple[Row, Row]:
    """The row of each side; of several, the only two rows with the same backbone and loss."""
    pairs = [(a, b) for a in first for b in second]
    if len(pairs) == 1:
        return pairs[0]
    alike = [(a, b) for a, b in pairs if (a.backbone, a.loss) == (b.backbone, b.loss)]
    rows = " and ".join(f"{count(len(r), 'row')} of {r[0].method}" for r in (first, second))
    if len(alike) != 1:
        titles = {row.run_ids[0]: row.title for row in (*first, *second)}
        listed = "; ".join(f"{run_id} is {title}" for run_id, title in titles.items())
        raise SuiteError(f"the board has {rows}: {listed}; give run ids instead")
    same = f"those with {alike[0][0].backbone} and {alike[0][0].loss}"
    errors.print(f"of {rows}, {same} are compared; run ids choose others")
    return alike[0]


# ---------------------------------------------------------------------------------------- terminal
def _lines(found: PairedComparison) -> Iterator[str]:
    for letter, side in (("A", found.first), ("B", found.second)):
        runs = f"({plural(len(side.run_ids), 'run')} {', '.join(side.run_ids)})"
        yield f"{letter}: {side.mAP:.2f} mAP  {side.title}  {runs}"
    yield ""
    if found.equal:
        yield "The predictions of A and B are equal, score by score: there is nothing to test."
    else:
        yield from _differences(found)
    yield ""
    yield "Settings that differ:" if found.settings else "No setting differs."
    for name, value, other in found.settings:
        yield f"  {name}: {value} and {other}"


def _differences(found: PairedComparison) -> Iterator[str]:
    yield f"A - B: {_difference(found.over_images)} over test images, models fixed"
    images = count(found.images, "image")
    yield f"       paired bootstrap, {count(found.resamples, 'draw')} of {images}"
    if found.over_training is None:
        which = "A's" if found.first.training_deviation is None else "B's"
        yield f"       the noise of training is unknown: no row of {which} board has several seeds"
    else:
        yield f"A - B: {_difference(found.over_training)} with the noise of training as well"
        a, b = found.first.training_deviation, found.second.training_deviation
        yield f"       sd between seeds {a:.2f} on A's board, {b:.2f} on B's, over all rows"
    yield ""
    moved = [one for one in found.classes if one.moved]
    listed = "" if moved else "; the largest differences"
    yield (
        f"Classes that moved: {len(moved)} of {len(found.classes)} (p by Holm over the classes, "
        f"the interval of each class alone){listed}:"
    )
    for one in moved or found.classes[:LISTED]:
        few = ": too few to rely on the interval and p" if one.few else ""
        positives = count(one.positives, "positive") + few
        yield f"  {one.name}: {one.first:.1f} and {one.second:.1f}, {_difference(one)}, {positives}"


def _difference(one: Difference) -> str:
    return f"{one.difference:+.2f} [{one.low:.2f},{one.high:.2f}], p {p_value(one.p)}"


def p_value(p: float) -> str:
    """Format a p value for use after the letter p: ``= 0.013``, or ``< 0.001`` if it is smaller.

    A fitted distribution also yields values such as 1e-60, but its tails are not reliable.
    """
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
