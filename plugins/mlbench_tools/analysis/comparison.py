"""Two runs, or two rows of a board: what differs, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlbench.boards.ranks import LEVEL, NORMAL_95, SeedNoise, pooled
from mlbench.boards.variants import row_title
from mlbench.metrics.average_precision import Floats, ScoreMatrix, average_precision, check
from mlbench.metrics.bootstrap import INTERVAL, bootstrap_average_precision, mean_over_classes
from mlbench.metrics.paired import holm, satterthwaite, two_sided
from mlbench.store import Store
from mlbench.text import flatten
from mlbench.types import MeasureError, Predictions, RunRecord, Targets, Value

FEW = 10
"""Positives below which the interval and the p value of a class are rough."""


class ComparedSide(Value):
    """One side of a comparison.

    Attributes:
        title: method, backbone and loss.
        run_ids: its runs, which differ in their seed alone.
        mAP: mean over them, percent.
        training_deviation: standard deviation of mAP between seeds, pooled over the rows of its
            board; None where no row has several seeds.
    """

    title: str
    run_ids: tuple[str, ...]
    mAP: float  # noqa: N815 - the field's own spelling
    training_deviation: float | None


class Difference(Value):
    """First minus second in points, with its 95 % interval and the p value of no difference."""

    difference: float
    low: float
    high: float
    p: float


class ClassDifference(Difference):
    """Difference of one class's AP; p is Holm's over all classes, the interval this class's own."""

    name: str
    positives: int
    first: float
    second: float

    @property
    def moved(self) -> bool:
        """True if the difference is beyond chance, given the number of classes tested."""
        return self.p < LEVEL

    @property
    def few(self) -> bool:
        """True if the positives are too few to rely on the interval and the p value."""
        return self.positives < FEW


class PairedComparison(Value):
    """The differences of two sides.

    Attributes:
        images: test images that both were scored on.
        resamples: draws of the paired bootstrap.
        over_images: the difference on other images, with the models as they are.
        equal: True if all scores of both sides are equal, run by run.
        over_training: the difference with the noise of training as well; None where the noise of a
            side is unknown, or the sides are equal.
        classes: largest difference first; classes without an AP are left out.
        settings: (name, first value, second value) of all fields of the specs that differ.
    """

    first: ComparedSide
    second: ComparedSide
    images: int
    resamples: int
    equal: bool
    over_images: Difference
    over_training: Difference | None
    classes: tuple[ClassDifference, ...]
    settings: tuple[tuple[str, Any, Any], ...]


def compare_runs(
    first: Sequence[RunRecord],
    second: Sequence[RunRecord],
    boards: Sequence[Sequence[Sequence[RunRecord]]],
    store: Store,
    resamples: int = 1000,
) -> PairedComparison:
    """Compare two sides image by image; the rows of their ``boards`` give the noise of training.

    Raises:
        StoreError: the predictions of a run are missing or damaged.
        MeasureError: the sides were scored on other labels, images or targets, or the scores of a
            file cannot be measured.
    """
    records = [*first, *second]
    predictions = [_read(record, store) for record in records]
    _check_comparable(records, predictions)
    reference, images = predictions[0], len(predictions[0].keys)
    logits = [one.logits for one in predictions]
    sides = logits[: len(first)], logits[len(first) :]
    over_images, by_class = paired_bootstrap(*sides, reference.targets, resamples)
    equal = len(first) == len(second) and all(map(np.array_equal, *sides))
    noises = [pooled(rows) for rows in boards]
    over_training = None
    if all(noise.freedom for noise in noises) and not equal:
        shares = zip(noises, (first, second), strict=True)
        variances = [noise.deviation**2 / len(side) for noise, side in shares]
        freedoms = [noise.freedom for noise in noises]
        if noises[0] == noises[1]:  # one board, whose noise is estimated once
            variances, freedoms = [sum(variances)], freedoms[:1]
        over_training = _with_training(over_images, images, variances, freedoms)
    return PairedComparison(
        first=_side(first, noises[0]),
        second=_side(second, noises[1]),
        images=images,
        resamples=resamples,
        equal=equal,
        over_images=over_images,
        over_training=over_training,
        classes=tuple(_classes(by_class, first, second, reference.targets)),
        settings=tuple(_settings(first[0], second[0], several_seeds=len(records) > 2)),
    )


def _read(record: RunRecord, store: Store) -> Predictions:
    """The predictions of a run, with its images in the order of their keys."""
    found = store.predictions(record)
    try:
        check(found.logits, found.targets)
    except MeasureError as error:
        raise MeasureError(f"{store.predictions_file(record)}: {error}") from error
    order = np.argsort(np.array(found.keys))
    keys = tuple(found.keys[i] for i in order)
    return Predictions(found.logits[order], found.targets[order], keys)


def _check_comparable(records: Sequence[RunRecord], predictions: Sequence[Predictions]) -> None:
    record, reference = records[0], predictions[0]
    for other, found in zip(records[1:], predictions[1:], strict=True):
        if other.label_names != record.label_names:
            what = "labels, or have them in another order"
        elif found.keys != reference.keys:
            what = "images"
        elif not np.array_equal(found.targets, reference.targets):
            what = "targets"
        else:
            continue
        raise MeasureError(
            f"runs {record.run_id} ({record.identity}) and {other.run_id} ({other.identity}) were "
            f"scored on different {what}; compare runs of one board"
        )


def _side(records: Sequence[RunRecord], noise: SeedNoise) -> ComparedSide:
    spec = records[0].spec
    return ComparedSide(
        title=row_title(spec),
        run_ids=tuple(record.run_id for record in records),
        mAP=float(np.mean([r.scores.mAP for r in records if r.scores is not None])),
        training_deviation=noise.deviation if noise.freedom else None,
    )


def _with_training(
    found: Difference, images: int, variances: Sequence[float], freedoms: Sequence[int]
) -> Difference:
    """The difference on other images and after another training."""
    from scipy import stats

    of_images = ((found.high - found.low) / 2 / NORMAL_95) ** 2
    both = float(satterthwaite([of_images, *variances], [max(images - 1, 1), *freedoms]))
    variance = of_images + sum(variances)
    half = float(stats.t.ppf(1 - LEVEL / 2, both)) * variance**0.5
    return Difference(
        difference=found.difference,
        low=found.difference - half,
        high=found.difference + half,
        p=float(two_sided(found.difference, variance, both)),
    )


def _classes(
    by_class: Sequence[Difference | None],
    first: Sequence[RunRecord],
    second: Sequence[RunRecord],
    targets: Targets,
) -> list[ClassDifference]:
    found = {c: one for c, one in enumerate(by_class) if one is not None}
    adjusted = holm([one.p for one in found.values()])
    positives = (targets == 1).sum(axis=0)
    means = [
        np.mean([[ap or 0.0 for ap in record.average_precision] for record in side], axis=0)
        for side in (first, second)
    ]
    classes = [
        ClassDifference(
            name=first[0].label_names[c],
            positives=int(positives[c]),
            first=float(means[0][c]),
            second=float(means[1][c]),
            **{**dict(one), "p": float(p)},
        )
        for (c, one), p in zip(found.items(), adjusted, strict=True)
    ]
    return sorted(classes, key=lambda one: (-abs(one.difference), one.name))


def _settings(
    first: RunRecord, second: RunRecord, *, several_seeds: bool
) -> list[tuple[str, Any, Any]]:
    one, other = (flatten(record.spec.model_dump(mode="json")) for record in (first, second))
    names = sorted({*one, *other} - ({"seed"} if several_seeds else set()))
    return [
        (name.removeprefix("settings."), one.get(name), other.get(name))
        for name in names
        if one.get(name) != other.get(name)
    ]


# -------------------------------------------------------------------------------- paired bootstrap
def paired_bootstrap(
    first: Sequence[ScoreMatrix],
    second: Sequence[ScoreMatrix],
    targets: Targets,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Difference, list[Difference | None]]:
    """Draw the same images with replacement for both sides and compare their mean mAPs.

    Either side may be several seeds of one configuration: in each draw of images its score is the
    mean over its seeds. The answer is about images, with the trained models as they are. Seeds are
    not drawn: a bootstrap of three seeds has ten values with two thirds of the seeds' variance.
    ``compare_runs`` adds the variance of training instead, pooled over a board.

    Draws are shifted so that their mean is the measured difference, as in
    ``mlbench.metrics.bootstrap.score``: a draw repeats images, which raises the AP of rare labels,
    and not by the same amount for both. The interval is percentiles of the draws, and p is twice
    the fraction of draws on the far side of 0, counting one draw more than there were (Davison and
    Hinkley, 1997, section 4.2), so that it is never 0: below 0.05 exactly when the interval leaves
    0 out, but for that one draw.

    A class's p value is that of a normal deviate with the standard deviation of the draws: counted
    p values end at 2 / (resamples + 1), which is too large for a correction for 80 labels.

    Args:
        first: score matrices [N, C] of one or more seeds, images in the order of ``targets``.
        second: score matrices of the other side.
        targets: int8 [N, C] in {1, 0, -1}.
        resamples: number of draws.
        seed: seed of the draws.

    Returns:
        The difference of the mAPs, and the difference of each class's APs with its own interval and
        its own p value, not adjusted for the number of classes; None for a class without an AP.

    Raises:
        MeasureError: the shapes differ, a score is not finite, or no class can be scored.
    """
    measured_C = _mean(first, lambda scores: average_precision(scores, targets))
    measured_C -= _mean(second, lambda scores: average_precision(scores, targets))
    found_RC = _mean(first, lambda s: bootstrap_average_precision(s, targets, resamples, seed))
    found_RC -= _mean(second, lambda s: bootstrap_average_precision(s, targets, resamples, seed))
    measured = float(np.nanmean(measured_C))
    draws_R = _centred(mean_over_classes(found_RC), measured)
    beyond = min(np.count_nonzero(draws_R <= 0), np.count_nonzero(draws_R >= 0))
    p = min(1.0, 2 * (beyond + 1) / (len(draws_R) + 1))
    classes = zip(measured_C.tolist(), found_RC.T, strict=True)
    return _difference(measured, draws_R, p), [_of_class(ap, draws_R) for ap, draws_R in classes]


def _mean(side: Sequence[ScoreMatrix], metric: Callable[[ScoreMatrix], Floats]) -> Floats:
    return sum(map(metric, side), np.zeros(())) / len(side)


def _centred(draws_R: Floats, mean: float) -> Floats:
    moved: Floats = draws_R - draws_R.mean() + mean
    return moved


def _of_class(measured: float, draws_R: Floats) -> Difference | None:
    if np.isnan(measured):
        return None
    draws_R = _centred(draws_R[~np.isnan(draws_R)], measured)
    return _difference(measured, draws_R, float(two_sided(measured, draws_R.var(ddof=1))))


def _difference(measured: float, draws_R: Floats, p: float) -> Difference:
    low, high = (100 * float(bound) for bound in np.percentile(draws_R, INTERVAL))
    return Difference(difference=100 * measured, low=low, high=high, p=p)
