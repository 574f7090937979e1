"""Records -> tables: one a data set's edition, label subset and track, which are never mixed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from mlbench.leaderboard.influences import Influences
from mlbench.leaderboard.ranks import rank
from mlbench.leaderboard.variants import unsaid, variants
from mlbench.types import Efficiency, RunRecord, Tier, Track, Value

PLACES = 2
"""Decimals of a score on a board."""


class Row(Value):
    """The runs of one configuration, which differ in their seed alone.

    Attributes:
        rank: 1 + how many rows are significantly better (see ``mlbench.leaderboard.ranks``).
        variant: settings that set this row apart from others of its method, backbone and loss.
        mAP, CF1, OF1: percent, means over the seeds.
        low, high: the 95 % bootstrap interval of mAP; None with several seeds.
        deviation: sample standard deviation of mAP over the seeds; None with one seed.
        gmacs, gmacs_head: 1e9 multiply-accumulates an image, and the head's share.
        parameters: millions.
        latency: (where it was measured, median ms at batch 1), one a place.
        commands: what made the runs, each with its commit.
        rank_worst: how many rows there are, less those that are significantly worse.
        configuration: run id of the spec with seed 0, which names the row in every version of it.
    """

    rank: int
    method: str
    backbone: str
    loss: str
    variant: str = ""
    seeds: int
    mAP: float  # noqa: N815 - the field's own spelling
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    CF1: float
    OF1: float
    gmacs: float | None = None
    gmacs_head: float | None = None
    parameters: float | None = None
    latency: tuple[tuple[str, float], ...] = ()
    image_size: int
    epochs: int
    run_ids: tuple[str, ...]
    commands: tuple[str, ...]
    rank_worst: int = 0
    configuration: str = ""


class Diverged(Value):
    """A run without a score, and why."""

    run_id: str
    title: str
    error: str


class Table(Value):
    """A board.

    Attributes:
        identity: edition of the data.
        data: digest of the splits; two label subsets of one size differ in it alone.
        labels: the subset of labels, None for all.
        track: which question its runs answer.
        known: whether the edition is one that the data set's card knows, with all of its images.
        coverage: what was in hand of a split that is not, a line a split.
        tier: runs of ours, or published weights that we scored.
        test_images, classes: what the scores were taken over.
        left_out: classes without a positive in the test split.
        rows: best first.
        diverged: runs that are not ranked.
        wins: a text a row, a character a row: ``+`` it is better, ``-`` worse, ``=`` they cannot be
            told apart, ``.`` itself.
        unpaired: rows that were compared by their intervals alone, for want of predictions.
        training_deviation: standard deviation of mAP between seeds, pooled over all rows that
            have several; None where no row has.
        options: what no column and no variant shows, a line a method.
    """

    identity: str
    data: str
    labels: tuple[str, ...] | None
    track: Track
    known: bool
    coverage: tuple[str, ...] = ()
    test_images: int
    classes: int
    left_out: int
    rows: tuple[Row, ...]
    diverged: tuple[Diverged, ...] = ()
    tier: Tier = "own"
    wins: tuple[str, ...] = ()
    unpaired: int = 0
    training_deviation: float | None = None
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Unique among tables: ``coco-mini-probe``."""
        subset = f"-{self.data[:8]}" if self.labels is not None else ""
        tier = "" if self.tier == "own" else f"-{self.tier}"
        return f"{self.identity}{subset}{tier}-{self.track}"


def tables(records: Iterable[RunRecord], influences: Influences | None = None) -> list[Table]:
    """Group records into boards, known editions first, then by name.

    Args:
        records: one a run.
        influences: where those of their predictions are had, so that rows are compared image by
            image; without it rows are compared by the intervals of their records, as if they had
            seen different images, and fewer are told apart.
    """
    groups: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        key = (record.identity, record.spec.data, record.spec.track, record.tier)
        groups[key].append(record)
    made = [
        _table(sorted(group, key=lambda record: record.run_id), influences)
        for group in groups.values()
    ]
    return sorted(made, key=lambda table: (not table.known, table.name, table.data))


def _table(records: list[RunRecord], influences: Influences | None) -> Table:
    """One board of records that share identity, data and track."""
    configurations: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.scores is not None:
            one_seed = record.spec.model_copy(update={"seed": 0})
            configurations[one_seed.run_id].append(record)
    firsts = [group[0].spec for group in configurations.values()]
    rows = [
        _row(group, name, variant)
        for (name, group), variant in zip(configurations.items(), variants(firsts), strict=True)
    ]
    rows = sorted(rows, key=_order)
    ranks = rank([configurations[row.configuration] for row in rows], influences)
    spec, scores = records[0].spec, next((r.scores for r in records if r.scores), None)
    return Table(
        identity=records[0].identity,
        data=spec.data,
        labels=spec.labels,
        track=spec.track,
        known=records[0].complete,
        coverage=() if records[0].complete else _coverage(records),
        test_images=records[0].test_images,
        classes=len(records[0].label_names),
        left_out=scores.classes_left_out if scores else 0,
        rows=tuple(
            row.model_copy(update={"rank": best, "rank_worst": worst})
            for row, best, worst in zip(rows, ranks.best, ranks.worst, strict=True)
        ),
        diverged=tuple(_diverged(record) for record in records if record.scores is None),
        tier=records[0].tier,
        wins=ranks.wins,
        unpaired=ranks.unpaired,
        training_deviation=ranks.training.deviation if ranks.training.freedom else None,
        options=tuple(unsaid(firsts)),
    )


def _coverage(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """Of the first run that states it: how much of each split there was."""
    found = next((record.coverage for record in records if record.coverage), None)
    return tuple(
        f"{name}: {split.usable:,} of {split.images:,} listed images usable"
        + (f", {split.official:,} officially" if split.official else "")
        for name, split in (found.splits.items() if found else ())
    )


def _row(records: Sequence[RunRecord], configuration: str, variant: str) -> Row:
    records = sorted(records, key=lambda record: record.spec.seed)
    spec, scores = records[0].spec, [r.scores for r in records if r.scores is not None]
    maps, single = [s.mAP for s in scores], len(scores) == 1
    costs = [r.efficiency for r in records if r.efficiency is not None]
    first = costs[0] if costs else None
    return Row(
        rank=0,
        configuration=configuration,
        method=spec.method,
        backbone=spec.settings.backbone,
        loss=spec.settings.loss,
        variant=variant,
        seeds=len(scores),
        mAP=statistics.fmean(maps),
        low=scores[0].mAP_low if single else None,
        high=scores[0].mAP_high if single else None,
        deviation=None if single else statistics.stdev(maps),
        CF1=statistics.fmean(s.CF1 for s in scores),
        OF1=statistics.fmean(s.OF1 for s in scores),
        gmacs=first.gmacs_backbone + first.gmacs_head if first else None,
        gmacs_head=first.gmacs_head if first else None,
        parameters=(first.parameters_backbone + first.parameters_head) / 1e6 if first else None,
        latency=_latency(records),
        image_size=spec.settings.image_size,
        epochs=spec.settings.epochs,
        run_ids=tuple(r.run_id for r in records),
        commands=tuple(dict.fromkeys(_command(r) for r in records)),
    )


def _order(row: Row) -> tuple[Any, ...]:
    """Best first; rows that look the same by name."""
    return -round(row.mAP, PLACES), row.method, row.backbone, row.loss, row.run_ids


def _latency(records: Iterable[RunRecord]) -> tuple[tuple[str, float], ...]:
    """The median at batch 1 over the runs, apart for every place where it was measured."""
    times: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if (cost := record.efficiency) is not None:
            times[_where(cost, record)] += [t.median_ms for t in cost.latency if t.batch_size == 1]
    return tuple((place, statistics.median(ms)) for place, ms in sorted(times.items()) if ms)


def _where(cost: Efficiency, record: RunRecord) -> str:
    """Device, precision and, on a processor, threads: latencies compare only where all agree."""
    on_cuda = record.environment.get("device") == cost.device
    threads = "" if on_cuda else f", {cost.threads} thread{'s' * (cost.threads != 1)}"
    return f"{cost.device}{threads}, {cost.precision}"


def _command(record: RunRecord) -> str:
    return f"{record.command}  # commit {record.commit[:12]}" if record.commit else record.command


def _diverged(record: RunRecord) -> Diverged:
    settings = record.spec.settings
    title = f"{record.spec.method}, {settings.backbone}, {settings.loss}, seed {record.spec.seed}"
    error = record.error or f"{record.status} without scores"
    return Diverged(run_id=record.run_id, title=title, error=error)
