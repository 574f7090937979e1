"""Which runs share a board, and what it is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from mlbench.types import RunRecord, Tier, Track


class Board(NamedTuple):
    """What all runs of a board have in common; runs that differ in any of it are never compared.

    Attributes:
        identity: edition of the data.
        data: digest of the splits; two label subsets of one size differ in it alone.
        labels: the subset of labels, None for all.
        track: which question its runs answer.
        tier: runs of ours, or published weights that we scored.
    """

    identity: str
    data: str
    labels: tuple[str, ...] | None
    track: Track
    tier: Tier

    @property
    def name(self) -> str:
        """Unique among boards, fit for a file: ``coco-mini-probe``."""
        subset = f"-{self.data[:8]}" if self.labels is not None else ""
        tier = "" if self.tier == "own" else f"-{self.tier}"
        return f"{self.identity}{subset}{tier}-{self.track}"

    @property
    def title(self) -> str:
        """Unique among boards, in words: ``coco-mini, probe track``."""
        subset = f" ({self.data[:8]})" if self.labels is not None else ""
        scored = "" if self.tier == "own" else f", {self.tier}: published weights, not trained here"
        return f"{self.identity}{subset}, {self.track} track{scored}"


def by_board(records: Iterable[RunRecord]) -> dict[Board, list[RunRecord]]:
    """The records of each board, in the order in which they come."""
    boards: dict[Board, list[RunRecord]] = defaultdict(list)
    for record in records:
        spec = record.spec
        board = Board(record.identity, spec.data, spec.labels, spec.track, record.tier)
        boards[board].append(record)
    return dict(boards)
