"""Group records into tables, one per edition, label subset and track."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

from mlbench.boards.ranks import Influences, intervals, rank
from mlbench.boards.variants import COLUMNS, options_by_loss, row_title, untuned_runs, variants
from mlbench.numbers import outdated
from mlbench.types import ModelCost, RunRecord, Speed, Speeds, Tier, Track, Value

PLACES = 2
"""Decimal places of scores on boards."""


class Board(Value):
    """Everything that the runs of a board share; runs of different boards are never compared.

    Attributes:
        identity: edition of the data.
        data: digest of the splits; label subsets of equal size differ only in it.
        labels: subset of the labels; None for all.
        tier: whether runs were trained here, or published weights were scored.
        current: whether the installed code would give the same numbers.
        init: the model that the runs started from (see ``RunSpec.init``).
        saw: data sets whose labels the initial weights have seen (see ``Pretraining.saw``).
    """

    identity: str
    data: str
    labels: tuple[str, ...] | None
    track: Track
    tier: Tier = "own"
    current: bool = True
    init: str = ""
    saw: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A unique name, suitable for a file: ``coco-mini-probe``."""
        return f"{self.data_name}-{self.track}{'' if self.current else '-other-code'}"

    @property
    def data_name(self) -> str:
        """The name without track and code: ``coco-mini``."""
        subset = f"-{self.data[:8]}" if self.labels is not None else ""
        tier = "" if self.tier == "own" else f"-{self.tier}"
        start = f"-from-{self.init[7:15]}" if self.init else ""
        start += "".join(f"-saw-{name}" for name in self.saw)
        return f"{self.identity}{subset}{tier}{start}"

    @property
    def title(self) -> str:
        """A unique title: ``coco-mini, probe track``."""
        subset = f" ({self.data[:8]})" if self.labels is not None else ""
        scored = "" if self.tier == "own" else f", {self.tier}: published weights, not trained here"
        start = f", started from the model {self.init[7:15]}" if self.init else ""
        start += f", from weights that saw labels of {' and '.join(self.saw)}" if self.saw else ""
        code = "" if self.current else ", made by other code"
        return f"{self.identity}{subset}, {self.track} track{scored}{start}{code}"


def group_by_board(records: Iterable[RunRecord]) -> dict[Board, list[RunRecord]]:
    """Group records by board; keep their order.

    Digests of image files, and of labels, are appended to the editions of boards of equal name.
    """
    boards: dict[Board, list[RunRecord]] = defaultdict(list)
    for record in records:
        spec = record.spec
        board = Board(
            identity=record.identity,
            data=spec.data,
            labels=spec.labels,
            track=spec.track,
            tier=record.tier,
            current=not outdated(record.numbers),
            init=spec.init,
            saw=record.pretraining.saw if record.pretraining else (),
        )
        boards[board].append(record)
    alike: dict[str, list[str]] = defaultdict(list)
    for board in boards:
        alike[board.name].append(board.data.rpartition("-")[2])

    def apart(board: Board) -> Board:
        labels, _, images = board.data.rpartition("-")
        part = f"-images-{images}" if len(alike[board.name]) > 1 else ""
        part += f"-labels-{labels}" if alike[board.name].count(images) > 1 else ""
        return board.model_copy(update={"identity": board.identity + part})

    return {apart(board): group for board, group in boards.items()}


class Row(Value):
    """The runs of one configuration, which differ only in their seed.

    Attributes:
        rank: 1 + the number of significantly better rows (see ``mlbench.boards.ranks``).
        title: method, backbone, loss, and the settings in which rows with these differ:
            ``gap, resnet18, bce epochs=8, optimizer.lr=0.1``.
        variant: these settings, without those that have a column.
        mAP, CF1, OF1: percent, means over the seeds.
        low, high: 95 % interval of mAP over images and, if the board has rows with several seeds,
            over training (see ``ranks.intervals``).
        deviation: sample standard deviation of mAP over the seeds; None with one seed.
        gmacs, gmacs_head: 1e9 multiply-accumulates per image, in total and in the head.
        parameters: millions.
        speeds: speeds of the model, one per place of measurement (see ``Speeds``).
        commands: the commands that made the runs, with their commits.
        first_weights: largest weight of the state after the first step in the scored moving
            averages.
        rank_worst: number of rows minus the number of significantly worse rows.
        configuration: ``RunSpec.configuration``; it identifies the row over time.
        pretraining: what the initial weights were trained on; empty in old records.
    """

    rank: int
    title: str
    method: str
    backbone: str
    loss: str
    variant: str = ""
    seeds: int
    mAP: float  # noqa: N815 - the usual spelling
    low: float
    high: float
    deviation: float | None = None
    CF1: float
    OF1: float
    gmacs: float | None = None
    gmacs_head: float | None = None
    parameters: float | None = None
    speeds: tuple[Speed, ...] = ()
    image_size: int
    epochs: int
    run_ids: tuple[str, ...]
    commands: tuple[str, ...]
    first_weights: float = 0.0
    rank_worst: int = 0
    configuration: str = ""
    pretraining: str = ""


class Diverged(Value):
    """A run without a score, and the reason."""

    run_id: str
    title: str
    error: str


class Table(Board):
    """A board with its rows.

    Attributes:
        dataset: plugin name.
        known: whether the card of the data set knows the edition and no image is missing.
        coverage: lines with the number of usable images per split, if the edition is unknown.
        test_images, classes: numbers of scored images and labels.
        left_out: number of classes without a known positive or negative in the test split.
        rows: best first.
        diverged: runs that are not ranked.
        wins: as ``mlbench.boards.ranks.Ranks.wins``.
        unpaired: number of rows compared by intervals only, as they have no predictions.
        training_deviation: standard deviation of mAP between seeds, pooled over all rows that have
            several; None if no row has.
        options: lines with the head options that a method has with some losses only.
        held_out: whether the scored images were held out of train to choose settings.
        untuned: the rows whose learning rate was never tuned (see ``untuned_runs``).
    """

    dataset: str
    known: bool
    coverage: tuple[str, ...] = ()
    test_images: int
    classes: int
    left_out: int
    rows: tuple[Row, ...]
    diverged: tuple[Diverged, ...] = ()
    wins: tuple[str, ...] = ()
    unpaired: int = 0
    training_deviation: float | None = None
    options: tuple[str, ...] = ()
    held_out: bool = False
    untuned: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The title, and whether the data are known."""
        return self.title + ("" if self.known else ", incomplete or unknown data")

    @property
    def images(self) -> str:
        """The name of a scored image in notes."""
        return "validation image" if self.held_out else "test image"

    @property
    def run_ids(self) -> set[str]:
        """All runs of the board, ranked or diverged."""
        ranked = {run_id for row in self.rows for run_id in row.run_ids}
        return ranked | {run.run_id for run in self.diverged}


def tables(
    records: Iterable[RunRecord],
    influences: Influences | None = None,
    costs: Iterable[ModelCost] = (),
) -> list[Table]:
    """Make the tables of all boards of a store, known editions first, then by name.

    Without ``influences`` (``Store.influence``), rows are compared by the intervals of their
    records, as if they had been scored on different images, and fewer differences are significant.
    ``costs`` are measured speeds of the models.
    """
    listed = list(records)
    speeds, never = Speeds(costs), untuned_runs(listed)
    made = [
        _table(board, sorted(group, key=lambda record: record.run_id), influences, speeds, never)
        for board, group in group_by_board(listed).items()
    ]
    return sorted(made, key=lambda one: (not one.known, not one.current, one.name, one.data))


def _table(
    board: Board,
    records: list[RunRecord],
    influences: Influences | None,
    speeds: Speeds,
    never: Set[str],
) -> Table:
    """Make the table of one board from its records."""
    configurations: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.scores is not None:
            configurations[record.spec.configuration].append(record)
    groups = [sorted(group, key=lambda r: r.spec.seed) for group in configurations.values()]
    specs = [group[0].spec for group in groups]
    bounds = intervals(list(configurations.values()))
    names = zip(map(row_title, specs, variants(specs)), variants(specs, COLUMNS), strict=True)
    rows = sorted(
        map(_row, groups, names, bounds),  # rows with equal displayed scores by name
        key=lambda r: (-round(r.mAP, PLACES), r.method, r.backbone, r.loss, r.run_ids),
    )
    groups = [configurations[row.configuration] for row in rows]
    ranks = rank(groups, influences)
    first = records[0]
    return Table(
        **dict(board),
        dataset=first.spec.dataset,
        known=first.complete,
        coverage=() if first.complete else _coverage(records),
        test_images=first.test_images,
        classes=len(first.label_names),
        left_out=next((r.scores.classes_left_out for r in records if r.scores), 0),
        rows=tuple(
            row.model_copy(update={"rank": best, "rank_worst": worst, "speeds": speeds.of(group)})
            for row, group, best, worst in zip(rows, groups, ranks.best, ranks.worst, strict=True)
        ),
        diverged=tuple(_diverged(record) for record in records if record.scores is None),
        wins=ranks.wins,
        unpaired=ranks.unpaired,
        training_deviation=ranks.noise.deviation if ranks.noise.freedom else None,
        options=tuple(options_by_loss(specs)),
        held_out=bool(first.spec.holdout),
        untuned=tuple(row.title for row in rows if not never.isdisjoint(row.run_ids)),
    )


def _coverage(records: Iterable[RunRecord]) -> tuple[str, ...]:
    """Describe the number of usable images per split, from the first run that recorded it."""
    found = next((record.coverage for record in records if record.coverage), None)
    return tuple(
        f"{name}: {split.usable:,} of {split.images:,} listed images usable"
        + (f", {split.official:,} officially" if split.official else "")
        for name, split in (found.splits.items() if found else ())
    )


def _row(records: Sequence[RunRecord], names: tuple[str, str], bounds: tuple[float, float]) -> Row:
    """Make a row of the runs of one configuration, in the order of their seeds."""
    spec, scores = records[0].spec, [r.scores for r in records if r.scores is not None]
    maps = [s.mAP for s in scores]
    cost = next((r.efficiency for r in records if r.efficiency is not None), None)
    made = (f"{r.command}  # commit {r.commit[:12]}" if r.commit else r.command for r in records)
    return Row(
        rank=0,
        configuration=spec.configuration,
        method=spec.method,
        backbone=spec.settings.backbone,
        loss=spec.settings.loss,
        title=names[0],
        variant=names[1],
        seeds=len(scores),
        mAP=statistics.fmean(maps),
        low=bounds[0],
        high=bounds[1],
        deviation=statistics.stdev(maps) if len(maps) > 1 else None,
        CF1=statistics.fmean(s.CF1 for s in scores),
        OF1=statistics.fmean(s.OF1 for s in scores),
        gmacs=cost.gmacs_backbone + cost.gmacs_head if cost else None,
        gmacs_head=cost.gmacs_head if cost else None,
        parameters=(cost.parameters_backbone + cost.parameters_head) / 1e6 if cost else None,
        image_size=spec.settings.image_size,
        epochs=spec.settings.epochs,
        pretraining=records[0].pretraining.data if records[0].pretraining else "",
        first_weights=max(record.first_weights_share for record in records),
        run_ids=tuple(r.run_id for r in records),
        commands=tuple(dict.fromkeys(made)),
    )


def _diverged(record: RunRecord) -> Diverged:
    error = record.error or f"{record.status} without scores"
    title = f"{row_title(record.spec)}, seed {record.spec.seed}"
    return Diverged(run_id=record.run_id, title=title, error=error)
