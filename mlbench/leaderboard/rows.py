"""Records -> tables: one a data set's edition, label subset and track, which are never mixed."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlbench.types import Efficiency, RunRecord, RunSpec, Track, Value

PLACES = 2
"""Decimals of a score on a board; scores that look the same share a rank."""
SHOWN = {"method", "seed", "settings.backbone", "settings.loss", "settings.image_size"}
SHOWN |= {"settings.epochs", "settings.head"}
"""Fields of a spec that have a column, or follow from one: a variant does not repeat them."""


class Row(Value):
    """The runs of one configuration, which differ in their seed alone.

    Attributes:
        rank: 1 is best; equal scores share a rank.
        variant: settings that set this row apart from others of its method, backbone and loss.
        mAP, CF1, OF1: percent, means over the seeds.
        low, high: the 95 % bootstrap interval of mAP; None with several seeds.
        deviation: sample standard deviation of mAP over the seeds; None with one seed.
        gmacs, gmacs_head: 1e9 multiply-accumulates an image, and the head's share.
        parameters: millions.
        latency: (where it was measured, median ms at batch 1), one a place.
        commands: what made the runs, each with its commit.
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
        known: whether the edition is one that the data set's card knows.
        test_images, classes: what the scores were taken over.
        left_out: classes without a positive in the test split.
        rows: best first.
        diverged: runs that are not ranked.
    """

    identity: str
    data: str
    labels: tuple[str, ...] | None
    track: Track
    known: bool
    test_images: int
    classes: int
    left_out: int
    rows: tuple[Row, ...]
    diverged: tuple[Diverged, ...] = ()

    @property
    def name(self) -> str:
        """Unique among tables: ``coco-mini-probe``."""
        subset = f"-{self.data[:8]}" if self.labels is not None else ""
        return f"{self.identity}{subset}-{self.track}"


def tables(records: Iterable[RunRecord]) -> list[Table]:
    """Group records into boards, known editions first, then by name."""
    groups: dict[tuple[str, str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.identity, record.spec.data, record.spec.track].append(record)
    made = [_table(sorted(group, key=lambda r: r.run_id)) for group in groups.values()]
    return sorted(made, key=lambda table: (not table.known, table.name, table.data))


def _table(records: list[RunRecord]) -> Table:
    """One board of records that share identity, data and track."""
    configurations: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.scores is not None:
            one_seed = record.spec.model_copy(update={"seed": 0})
            configurations[one_seed.run_id].append(record)
    groups = list(configurations.values())
    apart = variants([group[0].spec for group in groups])
    rows = [_row(group, variant) for group, variant in zip(groups, apart, strict=True)]
    spec, scores = records[0].spec, next((r.scores for r in records if r.scores), None)
    return Table(
        identity=records[0].identity,
        data=spec.data,
        labels=spec.labels,
        track=spec.track,
        known=not re.search(r"-unknown-[0-9a-f]{16}", records[0].identity),
        test_images=records[0].test_images,
        classes=len(records[0].label_names),
        left_out=scores.classes_left_out if scores else 0,
        rows=_ranked(rows),
        diverged=tuple(_diverged(record) for record in records if record.scores is None),
    )


def _row(records: Sequence[RunRecord], variant: str) -> Row:
    records = sorted(records, key=lambda record: record.spec.seed)
    spec, scores = records[0].spec, [r.scores for r in records if r.scores is not None]
    maps, single = [s.mAP for s in scores], len(scores) == 1
    costs = [r.efficiency for r in records if r.efficiency is not None]
    first = costs[0] if costs else None
    return Row(
        rank=0,
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


def _ranked(rows: Iterable[Row]) -> tuple[Row, ...]:
    order = sorted(
        rows, key=lambda r: (-round(r.mAP, PLACES), r.method, r.backbone, r.loss, r.run_ids)
    )
    ranked: list[Row] = []
    for position, row in enumerate(order, start=1):
        same = ranked and round(ranked[-1].mAP, PLACES) == round(row.mAP, PLACES)
        ranked.append(row.model_copy(update={"rank": ranked[-1].rank if same else position}))
    return tuple(ranked)


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


def variants(specs: Sequence[RunSpec]) -> list[str]:
    """For each, the settings in which it differs from its namesakes: ``optimizer.lr=0.001``."""
    flat = [_flat(spec.model_dump(mode="json")) for spec in specs]
    namesakes: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, spec in enumerate(specs):
        namesakes[spec.method, spec.settings.backbone, spec.settings.loss].append(i)
    found = [""] * len(specs)
    for group in namesakes.values():
        names = sorted({name for i in group for name in flat[i]} - SHOWN)
        different = [n for n in names if len({str(flat[i].get(n)) for i in group}) > 1]
        for i in group:
            found[i] = ", ".join(
                f"{n.removeprefix('settings.')}={flat[i][n]}" for n in different if n in flat[i]
            )
    return found


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
