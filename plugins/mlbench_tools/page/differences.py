"""Methods over several data sets: what the index page says and draws of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mlbench.boards.ranks import LEVEL
from mlbench.boards.rows import Table
from mlbench.types import DatasetCard
from mlbench_tools.page.across import NO_CARDS, CriticalDifference, critical_differences
from mlbench_tools.page.curves import Tick

MOST = 40
"""Methods beyond which nothing is drawn: the table says the same and can be read."""
LONGEST = 56
"""Characters of a name in the drawing; the table has all of it."""
LETTER, ROW, LANE = 7, 20, 9
"""Pixels: the width of a letter, the distance of names, and that of bars."""
AXIS = 40
"""Where the axis lies, in pixels from the top."""


class Standing(NamedTuple):
    """A line of the table: a method, its mean rank, and the lines it cannot be told apart from."""

    method: str
    rank: float
    same: str


class Name(NamedTuple):
    """A method in the drawing: the line from its rank on the axis, and the name where it ends."""

    path: str
    x: float
    y: float
    anchor: str
    text: str
    method: str


class Drawing(NamedTuple):
    """A critical-difference diagram (Demsar, JMLR 7, 2006, Figure 1), in pixels.

    Attributes:
        left, right: ends of the axis.
        shared: how all methods end alike, which their names then leave out.
        bars: a path of one line per group of methods that cannot be told apart.
    """

    width: float
    height: float
    left: float
    right: float
    ticks: tuple[Tick, ...]
    bars: str
    names: tuple[Name, ...]
    shared: str


class Across(NamedTuple):
    """What a track's boards say together.

    Attributes:
        drawing: None where nothing can be said, or there are too many methods.
        nemenyi: the critical difference of mean ranks by Nemenyi's test, None with ``standings``
            empty.
    """

    track: str
    said: str
    datasets: tuple[str, ...]
    standings: tuple[Standing, ...]
    drawing: Drawing | None
    nemenyi: float | None


def across(tables: Iterable[Table], cards: Mapping[str, DatasetCard] = NO_CARDS) -> list[Across]:
    """One per track, over the boards of our own runs on whole, known, independent data sets.

    Args:
        tables: boards.
        cards: of the data sets.
    """
    return [
        Across(
            track=found.track,
            said=found.said.removeprefix(f"{found.track}: "),
            datasets=found.datasets,
            standings=_standings(found),
            drawing=_drawing(found) if 0 < len(found.methods) <= MOST else None,
            nemenyi=found.nemenyi,
        )
        for found in critical_differences(tables, cards)
    ]


def _standings(found: CriticalDifference) -> tuple[Standing, ...]:
    same: list[list[int]] = [[] for _ in found.methods]
    for i, j, p in found.p:
        if p >= LEVEL:
            same[i].append(j + 1)
            same[j].append(i + 1)
    return tuple(
        Standing(method, rank, _ranges(sorted(others)))
        for method, rank, others in zip(found.methods, found.ranks, same, strict=True)
    )


def _ranges(numbers: Sequence[int]) -> str:
    """``[1, 2, 3, 7]`` as ``1 to 3, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _drawing(found: CriticalDifference) -> Drawing:
    k, shared = len(found.methods), _shared_end(found.methods)
    each = zip((name.removesuffix(shared) for name in found.methods), found.ranks, strict=True)
    texts, half = [_text(name, rank) for name, rank in each], (k + 1) // 2
    left = LETTER * max(map(len, texts[:half])) + 20.0
    right = left + max(280, 16 * k)

    def x(rank: float) -> float:
        return left + (rank - 1) / (k - 1) * (right - left)

    bars = _bars(
        [(x(found.ranks[first]) - 4, x(found.ranks[last]) + 4) for first, last in found.groups]
    )
    top = AXIS + 20 + LANE * (1 + max((lane for *_, lane in bars), default=-1))
    names = []
    for i, (rank, text) in enumerate(zip(found.ranks, texts, strict=True)):
        # The better half stands left with the best on top, the other one right with the worst on
        # top: so no line crosses another.
        y = top + ROW * min(i, k - 1 - i)
        end, beside, anchor = (
            (left - 6, left - 11, "end") if i < half else (right + 6, right + 11, "start")
        )
        path = f"M{x(rank):.1f} {AXIS}V{y}H{end:.1f}"
        names.append(Name(path, beside, y + 4, anchor, text, found.methods[i]))
    return Drawing(
        width=right + LETTER * max(map(len, texts[half:])) + 20,
        height=top + ROW * half,
        left=left,
        right=right,
        ticks=tuple(Tick(x(rank), str(rank)) for rank in range(1, k + 1, -(-(k - 1) // 10))),
        bars="".join(f"M{a:.1f} {AXIS + 12 + LANE * lane}H{b:.1f}" for a, b, lane in bars),
        names=tuple(names),
        shared=shared.removeprefix(", "),
    )


def _shared_end(methods: Sequence[str]) -> str:
    """``, resnet18, bce`` where all methods end so."""
    parts, alike = [method.split(", ") for method in methods], 0
    while alike + 1 < min(map(len, parts)) and len({part[-1 - alike] for part in parts}) == 1:
        alike += 1
    return "".join(f", {part}" for part in parts[0][len(parts[0]) - alike :])


def _text(name: str, rank: float) -> str:
    short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{short} \N{MIDDLE DOT} {rank:.2f}"


def _bars(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Each span with the first lane in which it lies apart from those before it."""
    ends: list[float] = []
    placed = []
    for first, last in spans:
        free = (lane for lane, end in enumerate(ends) if end + LANE < first)
        lane = next(free, len(ends))
        ends[lane : lane + 1] = [last]
        placed.append((first, last, lane))
    return placed
