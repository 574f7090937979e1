"""Methods over several data sets: the critical-difference diagram, as data and as text."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from mlbench.boards.ranks import LEVEL
from mlbench.boards.rows import Row, Table
from mlbench.metrics.significance import Floats, holm
from mlbench.text import count
from mlbench.types import DatasetCard, Track, Value

FEWEST = 5
"""Data sets below which nothing is said: no test on fewer ranks could reject anything."""
NO_CARDS: Mapping[str, DatasetCard] = MappingProxyType({})


class CriticalDifference(Value):
    """How methods compare over data sets (Demsar, JMLR 7, 2006; Benavoli et al., JMLR 17, 2016).

    Attributes:
        track: of the boards.
        datasets: names of their editions, N.
        methods: ``method, backbone, loss variant`` of the rows that all boards have, best first, K.
        ranks: [K] mean ranks over the data sets, 1 is best; ties get their mean rank.
        friedman_p: of no difference among the K at all.
        nemenyi: the critical difference of mean ranks by Nemenyi's test, for who knows it.
        groups: (first, last) positions in ``methods`` that no pair within can be told apart by
            Wilcoxon's signed ranks with Holm's correction: the bars of the diagram. Unlike a
            difference of mean ranks this does not depend on which other methods take part.
        p: (i, j, Holm's p value) of every pair of methods.
        said: what can and cannot be said, in words.
    """

    track: Track
    datasets: tuple[str, ...]
    methods: tuple[str, ...] = ()
    ranks: tuple[float, ...] = ()
    friedman_p: float | None = None
    nemenyi: float | None = None
    groups: tuple[tuple[int, int], ...] = ()
    p: tuple[tuple[int, int, float], ...] = ()
    said: str


def critical_differences(
    tables: Iterable[Table], cards: Mapping[str, DatasetCard] = NO_CARDS
) -> list[CriticalDifference]:
    """One per track, over the boards of our own runs on whole, known editions of the data.

    The tests take data sets to be independent. Of a family of them, and of a data set and a part of
    it, only the board with the most test images counts; what is said names the others.

    Args:
        tables: boards.
        cards: what is known of data sets; one without a card, or a family, stands for itself.
    """
    tracks: dict[Track, list[Table]] = defaultdict(list)
    for table in tables:
        if table.whole and table.tier == "own" and table.rows:
            tracks[table.track].append(table)
    found = []
    for track, boards in sorted(tracks.items()):
        counted, others = _independent(boards, cards)
        one = _of_track(track, counted)
        found.append(one.model_copy(update={"said": one.said + others}))
    return found


def _independent(
    boards: Sequence[Table], cards: Mapping[str, DatasetCard]
) -> tuple[list[Table], str]:
    """The largest board of every family, and words on those that stand back for it."""
    largest: dict[str, Table] = {}
    others = []
    for board in sorted(boards, key=lambda board: (-board.test_images, board.name, board.data)):
        card = cards.get(board.dataset)
        family = card.family if card is not None and card.family else board.dataset
        if largest.setdefault(family, board) is not board:
            others.append(f"{board.identity} (beside {largest[family].identity})")
    left_out = f" Data sets must be independent; left out: {', '.join(sorted(others))}."
    return list(largest.values()), left_out if others else ""


def _of_track(track: Track, boards: Sequence[Table]) -> CriticalDifference:
    names = tuple(sorted({board.identity for board in boards}))
    found = _everywhere(boards)
    everywhere = sorted(found)
    if len(names) < FEWEST or len(everywhere) < 3:
        return CriticalDifference(
            track=track,
            datasets=names,
            said=f"{track}: {_standing(len(everywhere), len(names))}; nothing can be said over "
            f"data sets with fewer than {FEWEST} of them, or with fewer than 3 rows.",
        )
    found_KN = np.array([[found[title][name] for name in names] for title in everywhere])
    return _tested(track, names, everywhere, found_KN)


def _everywhere(boards: Sequence[Table]) -> dict[str, dict[str, float]]:
    """Title of every row that all boards have -> its mAP on each.

    Where each board has one row of a method, backbone and loss, those rows are one, whatever budget
    or rate its data set has; where a board has several, only equal settings make them one.
    """
    rows: dict[tuple[str, ...], list[tuple[str, Row]]] = defaultdict(list)
    several = set()
    for board in boards:
        count_of = Counter((row.method, row.backbone, row.loss) for row in board.rows)
        several |= {name for name, number in count_of.items() if number > 1}
    for board in boards:
        for row in board.rows:
            name = (row.method, row.backbone, row.loss)
            rows[(*name, row.recipe) if name in several else name].append((board.identity, row))
    shared = {key: found for key, found in rows.items() if len(found) == len(boards)}
    titles = {key: max((row.title for _, row in found), key=len) for key, found in shared.items()}
    twice = {title for title, number in Counter(titles.values()).items() if number > 1}
    return {
        f"{titles[key]} ({key[-1][:8]})" if titles[key] in twice else titles[key]: {
            identity: row.mAP for identity, row in found
        }
        for key, found in shared.items()
    }


def _standing(rows: int, datasets: int) -> str:
    stand = f"{count(rows, 'row')} {'stands' if rows == 1 else 'stand'}"
    if datasets == 1:
        return f"{stand} on the board of the one data set"
    return f"{stand} on the boards of all {count(datasets, 'data set')}"


def _tested(
    track: Track, names: tuple[str, ...], titles: Sequence[str], found_KN: Floats
) -> CriticalDifference:
    from scipy import stats

    ranks_K = stats.rankdata(-found_KN, axis=0).mean(axis=1)
    order = np.argsort(ranks_K, kind="stable")
    k, n = found_KN.shape
    found_KN, pairs = found_KN[order], list(itertools.combinations(range(k), 2))
    p = holm(_wilcoxon(np.array([found_KN[i] - found_KN[j] for i, j in pairs])))
    apart = {pair for pair, value in zip(pairs, p, strict=True) if value < LEVEL}
    tied = bool((found_KN == found_KN[0]).all())  # of which Friedman's statistic is 0 / 0
    friedman = 1.0 if tied else float(stats.friedmanchisquare(*found_KN).pvalue)
    quantile = stats.studentized_range.ppf(1 - LEVEL, k, np.inf)
    return CriticalDifference(
        track=track,
        datasets=names,
        methods=tuple(titles[i] for i in order),
        ranks=tuple(float(rank) for rank in ranks_K[order]),
        friedman_p=friedman,
        nemenyi=float(quantile / 2**0.5 * (k * (k + 1) / 6 / n) ** 0.5),
        groups=_groups(k, apart),
        p=tuple((i, j, float(value)) for (i, j), value in zip(pairs, p, strict=True)),
        said=_words(track, k, n, friedman),
    )


def _wilcoxon(differences_PN: Floats) -> Floats:
    """P values [P]. They follow from the signed ranks, of which many pairs have the same."""
    from scipy import stats

    signed_PN = np.sign(differences_PN) * stats.rankdata(np.abs(differences_PN), axis=1)
    patterns, which = np.unique(signed_PN, axis=0, return_inverse=True)
    p = [float(stats.wilcoxon(pattern).pvalue) if pattern.any() else 1.0 for pattern in patterns]
    return np.array(p)[which.ravel()]


def _groups(k: int, apart: set[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The longest stretches of methods in which no pair is told apart, none within another."""
    found: list[tuple[int, int]] = []
    for first in range(k):
        last = first
        while last + 1 < k and all((i, last + 1) not in apart for i in range(first, last + 1)):
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)


def _words(track: Track, k: int, n: int, friedman: float) -> str:
    verdict = "differ" if friedman < LEVEL else "cannot be told apart as a whole"
    text = f"{track}: {k} methods on {n} data sets {verdict} (Friedman, p = {friedman:.2g})."
    smallest, pairs = 2.0 ** (1 - n), k * (k - 1) // 2
    if smallest * pairs >= LEVEL:
        needed = int(np.ceil(1 - np.log2(LEVEL / pairs))) if pairs else n
        text += (
            f" {n} data sets are too few for Wilcoxon with Holm to tell any of the {pairs} pairs "
            f"apart; it takes about {needed}."
        )
    return text


def diagram(found: CriticalDifference) -> list[str]:
    """Lines of text: what is said, each method with its mean rank, and bars beside groups."""
    lines = [found.said]
    for i, (rank, title) in enumerate(zip(found.ranks, found.methods, strict=True)):
        bars = "".join("|" if first <= i <= last else " " for first, last in found.groups)
        lines.append(f"{rank:6.2f} {bars} {title}")
    if found.nemenyi is not None:
        lines.append(
            "Bars join what Wilcoxon with Holm cannot tell apart. Nemenyi's critical difference "
            f"of mean ranks: {found.nemenyi:.2f}."
        )
    return lines
