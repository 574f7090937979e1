"""How much of the spread of mAP comes of backbone, head, loss, other settings and seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from mlbench.boards.rows import group_by_board
from mlbench.metrics.significance import Floats
from mlbench.types import RunRecord, Value

FACTORS = ("backbone", "head", "loss")
ROUNDING = 1e-9
"""Fraction of the sum of squares that may be left of 0."""


class Part(Value):
    """One cause of the spread.

    Attributes:
        name: the cause.
        levels: how many values of it the board has; None where that means nothing.
        freedom: degrees of freedom of it that nothing else on the board stands in for.
        share: percent of the sum of squares; None where it cannot be known.
        deviation: the same in points of mAP: root of the sum of squares per run; of the seed, its
            standard deviation between runs of one configuration. None of a negative share.
        p: of its being as large by the noise of seeds alone (F test); None without seeds.
    """

    name: str
    levels: int | None
    freedom: int
    share: float | None
    deviation: float | None
    p: float | None = None


class Explained(Value):
    """The spread of a board.

    Attributes:
        board: its title.
        runs: how many runs with a score.
        deviation: standard deviation of their mAP (percent), over all of them.
        parts: backbone, head and loss (each beyond what the others explain), what they explain only
            together, their interactions, other settings, and the seed; the shares add up to 100.
        words: what the numbers cannot say here.
    """

    board: str
    runs: int
    deviation: float
    parts: tuple[Part, ...]
    words: tuple[str, ...]

    @property
    def noise_known(self) -> bool:
        """Whether the seed has a share of its own; else its noise lies in the others, unknown."""
        return all(part.share is not None for part in self.parts if part.name == "seed")


def explain(records: Iterable[RunRecord]) -> list[Explained]:
    """Analysis of variance of every board, in the order of the boards' names.

    Every run is one observation. The design is seldom balanced, so that the sum of squares of a
    factor is what it explains beyond the other two (type II, without interactions; Langsrud, 2003,
    Statistics and Computing 13). What factors explain only together, as they vary together, is a
    part of its own and may be negative. Then come, one within the other: interactions (between
    combinations of the three, beyond their sum), other settings (between configurations of one
    combination), and the seed (between runs of one configuration).
    """
    boards = group_by_board(record for record in records if record.scores is not None)
    return [_board(board.title, boards[board]) for board in sorted(boards, key=lambda b: b.title)]


def _board(name: str, runs: Sequence[RunRecord]) -> Explained:
    scores = np.array([r.scores.mAP for r in runs if r.scores is not None])
    total = float(((scores - scores.mean()) ** 2).sum())
    if len(runs) < 3 or not total:
        said = _too_few(len(runs))
        deviation = (total / max(len(runs) - 1, 1)) ** 0.5
        return Explained(board=name, runs=len(runs), deviation=deviation, parts=(), words=(said,))
    parts, words = _parts(runs, scores, total)
    deviation = (total / (len(runs) - 1)) ** 0.5
    return Explained(board=name, runs=len(runs), deviation=deviation, parts=parts, words=words)


def _too_few(runs: int) -> str:
    if runs == 1:
        return (
            "there is only one run with a score, so that nothing varies; run others of this board"
        )
    if runs == 2:
        return (
            "two runs with a score are too few to explain their difference; `mlbench compare` them"
        )
    return "all runs have the same mAP, so that there is nothing to explain"


def _parts(
    runs: Sequence[RunRecord], scores: Floats, total: float
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    settings = [run.spec.settings for run in runs]
    factors = {name: [str(getattr(s, name)) for s in settings] for name in FACTORS}
    cells = list(zip(*factors.values(), strict=True))
    configurations = [r.spec.model_copy(update={"seed": 0}).run_id for r in runs]
    additive, freedom = _residual(list(factors.values()), scores)
    squares: dict[str, tuple[int | None, int, float]] = {}
    for name in FACTORS:
        others = [levels for other, levels in factors.items() if other != name]
        without, less = _residual(others, scores)
        squares[name] = (len(set(factors[name])), freedom - less, without - additive)
    alone = sum(square for _, _, square in squares.values())
    alone_freedom = sum(free for _, free, _ in squares.values())
    in_cells, in_configurations = _within(cells, scores), _within(configurations, scores)
    n_cells, n_configurations = len(set(cells)), len(set(configurations))
    squares["together"] = (None, freedom - 1 - alone_freedom, total - additive - alone)
    squares["interactions"] = (None, n_cells - freedom, additive - in_cells)
    squares["other settings"] = (None, n_configurations - n_cells, in_cells - in_configurations)
    squares["seed"] = (None, len(runs) - n_configurations, in_configurations)
    noise = squares["seed"]
    parts = tuple(_part(name, found, noise, total, len(runs)) for name, found in squares.items())
    words = list(_words({part.name: part for part in parts}))
    once = sum(configurations.count(one) == 1 for one in configurations)
    if once and noise[1]:
        words.append(
            f"seed: {once} of {len(runs)} runs {'has' if once == 1 else 'have'} one seed only, so "
            "that its share is too small and lies in the others, too; its points hold"
        )
    return parts, tuple(words)


def _part(
    name: str,
    found: tuple[int | None, int, float],
    noise: tuple[int | None, int, float],
    total: float,
    runs: int,
) -> Part:
    """From (levels, degrees of freedom, sum of squares) of a cause and of the seeds."""
    from scipy import stats

    levels, freedom, square = found
    per = freedom if name == "seed" else runs
    known = freedom > 0 or (name == "together" and abs(square) > ROUNDING * total)
    p = None
    if known and noise[1] > 0 and noise[2] > 0 and freedom > 0 and name not in ("together", "seed"):
        p = float(stats.f.sf(square / freedom / (noise[2] / noise[1]), freedom, noise[1]))
    return Part(
        name=name,
        levels=levels,
        freedom=max(freedom, 0),
        share=100 * square / total if known else None,
        deviation=max(square / per, 0.0) ** 0.5 if known and square > -ROUNDING * total else None,
        p=p,
    )


def _words(parts: dict[str, Part]) -> Iterable[str]:
    """What the parts cannot tell on this board."""
    for name in FACTORS:
        part = parts[name]
        if part.levels == 1:
            yield f"{name}: one only, so that nothing is known of its share"
        elif not part.freedom:
            yield f"{name}: changes only together with another cause; add runs that part them"
    if not parts["seed"].freedom:
        yield (
            "seed: no configuration has several seeds, so that its share is unknown and lies in "
            "the others: an unknown part of each is noise; run some with --seeds 0,1,2"
        )
    if not parts["interactions"].freedom:
        yield "interactions: too few combinations to tell them from the causes themselves"
    together = parts["together"].share
    if together is not None and together <= -0.05:
        yield (
            f"together: {together:.1f} %, as backbone, head and loss have more each (type II sums "
            "of squares, beyond the two others) than all at once: not all combinations ran, or "
            "not as often, and what one cause adds another hides; a full matrix would part them"
        )
    elif together is not None and together >= 5:
        yield (
            f"together: {together:.0f} % cannot be given to one cause, as backbones, heads and "
            "losses do not all meet; a full matrix would part them"
        )


def _residual(factors: Sequence[Sequence[str]], scores: Floats) -> tuple[float, int]:
    """Residual sum of squares of a sum of factors by least squares, and its parameters."""
    columns = [np.ones((len(scores), 1))]
    for levels in factors:
        names = sorted(set(levels))
        columns.append(np.array([[level == name for name in names] for level in levels], float))
    design = np.hstack(columns)
    solution, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    return float(((scores - design @ solution) ** 2).sum()), int(rank)


def _within(groups: Sequence[Hashable], scores: Floats) -> float:
    """Sum of squares about the means of the groups."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for group, score in zip(groups, scores, strict=True):
        members[group].append(float(score))
    return sum(float(np.var(found)) * len(found) for found in members.values())
