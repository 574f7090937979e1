"""Analysis of variance: how much of the spread of mAP each cause accounts for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from mlbench.boards.rows import group_by_board
from mlbench.metrics.average_precision import Floats
from mlbench.types import RunRecord, Value

FACTORS = ("backbone", "head", "loss")
ROUNDING = 1e-9
"""Largest value that counts as 0, in points of mAP or as a fraction of the sum of squares."""

SumOfSquares = tuple[float, int]
"""The sum of squares of a cause, and its degrees of freedom."""


class VarianceComponent(Value):
    """One cause of the spread.

    Attributes:
        name: the cause.
        levels: number of its values on the board; None where that means nothing.
        freedom: degrees of freedom that no other cause on the board accounts for.
        share: percent of the sum of squares; None where it is not identified.
        deviation: the share in points of mAP: root of the sum of squares per run; for the seed, the
            standard deviation between runs of one configuration. None for a negative share.
        p: probability of such a share by the noise of seeds alone (F test); None without seeds.
    """

    name: str
    levels: int | None
    freedom: int
    share: float | None
    deviation: float | None
    p: float | None = None


class BoardVariance(Value):
    """The spread of mAP on a board.

    Attributes:
        board: its title.
        runs: number of runs with a score.
        deviation: standard deviation of their mAP (percent), over all of them.
        parts: backbone, head and loss (each beyond what the others explain), what they explain only
            together, their interactions, other settings, and the seed; the shares add up to 100.
        words: remarks on what the numbers cannot say here.
    """

    board: str
    runs: int
    deviation: float
    parts: tuple[VarianceComponent, ...]
    words: tuple[str, ...]


def analyse(records: Iterable[RunRecord]) -> list[BoardVariance]:
    """Analyse the variance of every board, in the order of the boards' titles.

    Every run is one observation. The design is seldom balanced, so that the sum of squares of a
    factor is what it explains beyond the other two (type II, without interactions; Langsrud, 2003,
    Statistics and Computing 13). What factors explain only together, as they vary together, is a
    part of its own and may be negative. Nested within follow: interactions (between combinations of
    the three, beyond their sum), other settings (between configurations of one combination), and
    the seed (between runs of one configuration).
    """
    boards = group_by_board(record for record in records if record.scores is not None)
    return [_board(board.title, boards[board]) for board in sorted(boards, key=lambda b: b.title)]


def _board(name: str, runs: Sequence[RunRecord]) -> BoardVariance:
    scores = np.array([r.scores.mAP for r in runs if r.scores is not None])
    total = float(((scores - scores.mean()) ** 2).sum())
    parts: tuple[VarianceComponent, ...] = ()
    words: tuple[str, ...] = ("needs three runs or more that do not all have the same mAP",)
    if len(runs) > 2 and np.ptp(scores) > ROUNDING:
        parts = tuple(_components(runs, scores, total))
        words = tuple(_remarks({part.name: part for part in parts}, runs))
    deviation = (total / max(len(runs) - 1, 1)) ** 0.5
    return BoardVariance(board=name, runs=len(runs), deviation=deviation, parts=parts, words=words)


def _components(
    runs: Sequence[RunRecord], scores: Floats, total: float
) -> Iterator[VarianceComponent]:
    factors = {name: [str(getattr(r.spec.settings, name)) for r in runs] for name in FACTORS}
    additive, rank = _residual(list(factors.values()), scores)
    in_cells, cells = _residual([list(zip(*factors.values(), strict=True))], scores)
    of_runs = [run.spec.configuration for run in runs]
    in_configurations, configurations = _residual([of_runs], scores)
    found: dict[str, SumOfSquares] = {}
    for name in FACTORS:
        others = [levels for other, levels in factors.items() if other != name]
        without, less = _residual(others, scores)
        found[name] = without - additive, rank - less
    alone, freedom = (sum(column) for column in zip(*found.values(), strict=True))
    found["together"] = total - additive - alone, rank - 1 - int(freedom)
    found["interactions"] = additive - in_cells, cells - rank
    found["other settings"] = in_cells - in_configurations, configurations - cells
    found["seed"] = in_configurations, len(runs) - configurations
    for name, squares in found.items():
        levels = len(set(factors[name])) if name in factors else None
        yield _component(name, levels, squares, found["seed"], total, len(runs))


def _component(
    name: str, levels: int | None, found: SumOfSquares, noise: SumOfSquares, total: float, runs: int
) -> VarianceComponent:
    from scipy import stats

    (square, freedom), (noise_square, noise_freedom) = found, noise
    rounding = ROUNDING * total
    known = freedom > 0 or (name == "together" and abs(square) > rounding)
    tested = name not in ("together", "seed") and min(freedom, noise_freedom) > 0
    p = None
    if tested and noise_square > rounding:
        ratio = square / freedom / (noise_square / noise_freedom)
        p = float(stats.f.sf(ratio, freedom, noise_freedom))
    per = freedom if name == "seed" else runs
    return VarianceComponent(
        name=name,
        levels=levels,
        freedom=max(freedom, 0),
        share=100 * square / total if known else None,
        deviation=max(square / per, 0.0) ** 0.5 if known and square > -rounding else None,
        p=p,
    )


def _remarks(parts: dict[str, VarianceComponent], runs: Sequence[RunRecord]) -> Iterator[str]:
    """Yield the limits of what the shares show on this board."""
    for name in FACTORS:
        if parts[name].levels == 1:
            yield f"{name}: only one on this board, so that its share is unknown"
        elif not parts[name].freedom:
            yield f"{name}: changes only together with another cause; add runs that separate them"
    if not parts["seed"].freedom:
        yield (
            "seed: no configuration has several seeds, so that its share is unknown and an unknown "
            "part of each other share is noise; run some with --seeds 0,1,2"
        )
    if not parts["interactions"].freedom:
        yield "interactions: too few combinations to separate them from the causes themselves"
    together = parts["together"].share or 0.0
    if together <= -0.05 or together >= 5:
        yield (
            f"together: {together:.1f} % belongs to no single cause, as combinations of backbone, "
            "head and loss are missing or run unequally often (negative where one cause hides "
            "another: type II sums of squares); a full matrix would separate them"
        )
    configurations = [run.spec.configuration for run in runs]
    once = sum(configurations.count(one) == 1 for one in configurations)
    if once and parts["seed"].freedom:
        yield (
            f"seed: {once} of {len(runs)} runs have one seed only, so its share is underestimated "
            "(part of it is in the others); its points are right"
        )


def _residual(factors: Sequence[Sequence[Any]], scores: Floats) -> tuple[float, int]:
    """Fit a sum of factors by least squares; return the residual sum of squares and the rank."""
    columns = [[True] * len(scores)]
    for levels in factors:
        columns += [[one == level for one in levels] for level in sorted(set(levels))]
    design = np.array(columns, float).T.copy()
    solution, _, rank, _ = np.linalg.lstsq(design, scores, rcond=None)
    return float(((scores - design @ solution) ** 2).sum()), int(rank)
