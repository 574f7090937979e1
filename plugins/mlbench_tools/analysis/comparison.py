"""Two runs, or two rows of a board, side by side: what differs, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlbench.boards.ranks import LEVEL, NORMAL_95, SeedNoise
from mlbench.boards.variants import flat, named
from mlbench.metrics.average_precision import check
from mlbench.metrics.paired import Paired, paired_bootstrap
from mlbench.metrics.significance import holm, satterthwaite, two_sided
from mlbench.store import Store
from mlbench.types import MeasureError, Predictions, RunRecord, Value

FEW = 10
"""Positives below which the interval and the p value of a class are rough."""


class Side(Value):
    """One of the two.

    Attributes:
        title: method, backbone and loss.
        run_ids: its runs, which differ in their seed alone.
        mAP: mean over them, percent.
    """

    title: str
    run_ids: tuple[str, ...]
    mAP: float  # noqa: N815 - the field's own spelling


class Difference(Value):
    """First minus second in points, with its 95 % interval and the p value of no difference."""

    difference: float
    low: float
    high: float
    p: float


class ClassDifference(Difference):
    """Of the AP of one class; p is Holm's over all classes, the interval is of this class alone."""

    name: str
    positives: int
    first: float
    second: float

    @property
    def moved(self) -> bool:
        """Whether the difference is beyond chance, given how many classes were looked at."""
        return self.p < LEVEL

    @property
    def few(self) -> bool:
        """Whether the positives are too few to rely on the interval and the p value."""
        return self.positives < FEW


class Comparison(Value):
    """What two sides differ in.

    Attributes:
        images: test images that both were scored on.
        resamples: draws of the paired bootstrap.
        over_images: the difference on other images, with the models as they are.
        equal: every score of the one is that of the other, run by run.
        over_training: the same with the noise of training; None where no row of the board has
            several seeds, or the sides are equal.
        training_deviations: standard deviations of mAP between seeds for either side: pooled over
            the board, or its own where a row varies more; empty where no row has several seeds.
        classes: largest difference first; classes without a positive are left out.
        settings: (name, of the first, of the second), for all fields of the specs that differ.
    """

    first: Side
    second: Side
    images: int
    resamples: int
    equal: bool
    over_images: Difference
    over_training: Difference | None
    training_deviations: tuple[float, ...]
    classes: tuple[ClassDifference, ...]
    settings: tuple[tuple[str, Any, Any], ...]


class Runs(NamedTuple):
    """The records of a side, and the predictions of each with images in the order of their keys."""

    records: Sequence[RunRecord]
    predictions: Sequence[Predictions]


def read(records: Sequence[RunRecord], store: Store) -> Runs:
    """The predictions of a side.

    Raises:
        StoreError: a run has none that can be read.
        MeasureError: naming the file whose scores cannot be measured.
    """
    return Runs(records, [_sorted(_checked(record, store)) for record in records])


def _checked(record: RunRecord, store: Store) -> Predictions:
    found = store.predictions(record)
    try:
        check(found.logits, found.targets)
    except MeasureError as error:
        raise MeasureError(f"{store.predictions_file(record)}: {error}") from error
    return found


def compare(
    first: Runs,
    second: Runs,
    training: SeedNoise,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Hold two sides against each other, image by image.

    Args:
        first: one run or several seeds of one configuration.
        second: the same.
        training: the noise of training on their board, from ``ranks.pooled``.
        resamples: draws of the paired bootstrap.
        seed: of the draws.

    Raises:
        MeasureError: the sides were scored on other labels, images or targets.
    """
    reference = first.predictions[0]
    _check_comparable(first, second)
    found = paired_bootstrap(
        [p.logits for p in first.predictions],
        [p.logits for p in second.predictions],
        reference.targets,
        resamples,
        seed,
    )
    over_images = Difference(
        difference=100 * found.difference, low=100 * found.low, high=100 * found.high, p=found.p
    )
    counts = (len(first.records), len(second.records))
    seeds = {"seed"} if max(counts) > 1 else set()
    equal = _equal(first, second)
    noise = SeedNoise() if equal else training
    return Comparison(
        first=_side(first.records),
        second=_side(second.records),
        images=len(reference.keys),
        resamples=resamples,
        equal=equal,
        over_images=over_images,
        over_training=_with_training(over_images, noise, counts, len(reference.keys)),
        training_deviations=(training.deviation,) * 2 if training.freedom else (),
        classes=tuple(_classes(found, first, second)),
        settings=tuple(_settings(first.records[0], second.records[0], seeds)),
    )


def _sorted(predictions: Predictions) -> Predictions:
    order = np.argsort(np.array(predictions.keys))
    keys = tuple(predictions.keys[i] for i in order)
    return Predictions(predictions.logits[order], predictions.targets[order], keys)


def _equal(first: Runs, second: Runs) -> bool:
    pairs = zip(first.predictions, second.predictions, strict=False)
    same = len(first.records) == len(second.records)
    return same and all(np.array_equal(a.logits, b.logits) for a, b in pairs)


def _check_comparable(first: Runs, second: Runs) -> None:
    record, reference = first.records[0], first.predictions[0]
    records = (*first.records[1:], *second.records)
    for other, found in zip(records, (*first.predictions[1:], *second.predictions), strict=True):
        pair = f"runs {record.run_id} ({record.identity}) and {other.run_id} ({other.identity})"
        remedy = "compare runs of one board"
        if other.label_names != record.label_names:
            raise MeasureError(f"{pair} have other labels, or others in order; {remedy}")
        if found.keys != reference.keys:
            common = len(set(found.keys) & set(reference.keys))
            raise MeasureError(
                f"{pair} were scored on other splits: {len(reference.keys)} and {len(found.keys)} "
                f"images, of which {common} are in both; {remedy}"
            )
        if (wrong := np.count_nonzero(found.targets != reference.targets)) != 0:
            raise MeasureError(f"{pair} differ in {wrong} entries of their targets; {remedy}")


def _side(records: Sequence[RunRecord]) -> Side:
    spec = records[0].spec
    return Side(
        title=named(spec.method, spec.settings.backbone, spec.settings.loss),
        run_ids=tuple(record.run_id for record in records),
        mAP=float(np.mean([r.scores.mAP for r in records if r.scores is not None])),
    )


def _with_training(
    found: Difference, training: SeedNoise, counts: tuple[int, int], images: int
) -> Difference | None:
    from scipy import stats

    if not training.freedom:
        return None
    of_images = ((found.high - found.low) / 2 / NORMAL_95) ** 2
    noise = sum(training.deviation**2 / count for count in counts)
    freedom = float(satterthwaite([of_images, noise], [max(images - 1, 1), training.freedom]))
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * (of_images + noise) ** 0.5
    return Difference(
        difference=found.difference,
        low=found.difference - half,
        high=found.difference + half,
        p=float(two_sided(found.difference, of_images + noise, freedom)),
    )


def _classes(found: Paired, first: Runs, second: Runs) -> list[ClassDifference]:
    present = np.flatnonzero(~np.isnan(found.classes))
    adjusted = holm(np.nan_to_num(found.classes_p[present], nan=1.0))
    positives = (first.predictions[0].targets == 1).sum(axis=0)
    means = [_class_means(side) for side in (first, second)]
    classes = [
        ClassDifference(
            name=first.records[0].label_names[c],
            positives=int(positives[c]),
            first=means[0][c],
            second=means[1][c],
            difference=100 * float(found.classes[c]),
            low=100 * float(found.classes_low[c]),
            high=100 * float(found.classes_high[c]),
            p=float(p),
        )
        for c, p in zip(present, adjusted, strict=True)
    ]
    return sorted(classes, key=lambda one: (-abs(one.difference), one.name))


def _class_means(side: Runs) -> list[float]:
    by_run = [[ap or 0.0 for ap in record.average_precision] for record in side.records]
    return [float(mean) for mean in np.mean(by_run, axis=0)]


def _settings(first: RunRecord, second: RunRecord, ignored: set[str]) -> list[tuple[str, Any, Any]]:
    plain: list[Mapping[str, Any]] = [
        flat(record.spec.model_dump(mode="json")) for record in (first, second)
    ]
    names = sorted({*plain[0], *plain[1]} - ignored)
    return [
        (name.removeprefix("settings."), plain[0].get(name), plain[1].get(name))
        for name in names
        if plain[0].get(name) != plain[1].get(name)
    ]
