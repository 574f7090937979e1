"""The numbers of each protocol: functions of predictions; ``protocols`` names and defines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics.average_precision import (
    Floats,
    ScoreMatrix,
    average_precision,
    check,
    scored_classes,
)
from mlbench.metrics.bootstrap import point_scores
from mlbench.metrics.precision_recall import HALF, predict, rates
from mlbench.types import MeasureError, Predictions, RunRecord, Targets
from mlbench_tools.scoring import ranking

HEAD, TAIL = 100, 20
"""More than 100 training positives make a label head, fewer than 20 tail: the convention of VOC-LT
and COCO-LT (Wu et al., ECCV 2020)."""

GROUPS = ("head", "middle", "tail")

MSRN_SWEEP = np.arange(-10, 10) / 10
"""The logits -1.0, -0.9, ..., 0.9 that MSRN's evaluation tries."""


@dataclass(frozen=True)
class ProtocolInput:
    """The predictions that protocols score.

    Attributes:
        logits: [N, C], finite.
        targets: int8 [N, C] in {1, 0, -1}; some class can be scored.
        validation: logits and targets of images for choosing thresholds, neither trained on nor
            scored; None without any.
        train_positives: training images with each label [C]; None if unknown.
        absent: how means over classes treat classes without a positive.
    """

    logits: ScoreMatrix
    targets: Targets
    validation: tuple[ScoreMatrix, Targets] | None = None
    train_positives: NDArray[np.integer[Any]] | None = None
    absent: Literal["left out", "zero", "refused"] = "left out"

    @classmethod
    def of_run(cls, predictions: Predictions, record: RunRecord | None = None) -> ProtocolInput:
        """The predictions of a run; its record, if given, knows the training positives."""
        held_out = predictions.validation
        positives = None if record is None else record.train_positives
        return cls(
            predictions.logits,
            predictions.targets,
            None if held_out is None else (held_out.logits, held_out.targets),
            None if positives is None else np.array(positives, np.int64),
        )

    def absent_classes(self) -> NDArray[np.bool_]:
        """Mark the classes without a positive [C].

        Raises:
            MeasureError: there are some, and they are to be refused.
        """
        absent_C: NDArray[np.bool_] = ~(self.targets == 1).any(axis=0)
        if self.absent == "refused" and absent_C.any():
            raise MeasureError(
                f"{np.count_nonzero(absent_C)} of {len(absent_C)} classes have no positive, the "
                f"first is class {int(absent_C.argmax())}, and this protocol refuses such a split"
            )
        return absent_C


@dataclass(frozen=True)
class Measurement:
    """The numbers of a protocol.

    Attributes:
        values: name -> a number, never NaN; in percent unless the protocol says otherwise.
        by_label: name -> a number per label [C], NaN where it is not defined; or words; or, as
            whole numbers, another label by its column, -1 for none.
        curves: name -> numbers [bins], to be drawn together.
    """

    values: Mapping[str, float]
    by_label: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    curves: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def canonical(given: ProtocolInput) -> Measurement:
    """The scores of a record, without the bootstrap interval."""
    values, by_class = point_scores(given.logits, given.targets)
    return Measurement(values, {"AP": 100 * by_class})


def mean_ap(rule: Callable[[ScoreMatrix, Targets], Floats], given: ProtocolInput) -> Measurement:
    """The mean over the classes of their AP by a rule."""
    absent_C = given.absent_classes()
    ap_C = rule(given.logits, given.targets)
    if given.absent == "zero":
        ap_C = np.where(absent_C, 0.0, ap_C)
    scored = np.isfinite(ap_C)
    values = {
        "mAP": 100 * float(ap_C[scored].mean()),
        "classes_scored": int(np.count_nonzero(scored)),
        "classes_left_out": int(np.count_nonzero(~scored)),
    }
    return Measurement(values, {"AP": 100 * ap_C})


# ------------------------------------------------------------------------------------------ P/R/F1
def prf(given: ProtocolInput, threshold: float | Floats, top_k: int | None = None) -> Measurement:
    """P/R/F1 at a logit, or at a logit per class."""
    averaged_C = scored_classes(given.targets)
    absent_C = given.absent_classes()
    if given.absent == "zero":
        averaged_C |= absent_C
    found = rates(predict(given.logits, given.targets, threshold, top_k), given.targets, averaged_C)
    return Measurement({name: 100 * share for name, share in found.items()})


def prf_on_validation(given: ProtocolInput) -> Measurement:
    """P/R/F1 at the logit with the highest OF1 on validation images."""
    return _prf_at_found(given, best_threshold(*_validation(given)))


def prf_oracle(given: ProtocolInput) -> Measurement:
    """P/R/F1 at the logit that MSRN's evaluation picks on the scored images."""
    return _prf_at_found(given, msrn_threshold(given.logits, given.targets))


def _prf_at_found(given: ProtocolInput, threshold: float) -> Measurement:
    chance = float(ranking.probabilities(np.array(threshold)))
    found = {"threshold_probability": chance, "threshold_logit": threshold}
    return Measurement({**prf(given, threshold).values, **found})


def prf_on_validation_by_class(given: ProtocolInput) -> Measurement:
    """P/R/F1 at a logit per class, the one with its highest F1 on validation images."""
    logits, targets = _validation(given)
    found = [best_threshold(s, t) for s, t in zip(logits.T, targets.T, strict=True)]
    thresholds_C = np.array(found)
    chances_C = ranking.probabilities(thresholds_C)
    missing = int(np.count_nonzero(~(targets == 1).any(axis=0)))
    return Measurement(
        {**prf(given, thresholds_C).values, "thresholds_not_found": missing},
        {"threshold_probability": chances_C, "threshold_logit": thresholds_C},
    )


def _validation(given: ProtocolInput) -> tuple[ScoreMatrix, Targets]:
    """The logits and targets of the validation images, after checks."""
    if given.validation is None:
        raise MeasureError(
            "there are no predictions on validation images, and only the oracle picks thresholds "
            "on the images that are scored"
        )
    try:
        check(*given.validation)
    except MeasureError as error:
        raise MeasureError(f"validation split: {error}") from error
    found, wanted = given.validation[1].shape[1], given.targets.shape[1]
    if found != wanted:
        raise MeasureError(
            f"validation split: {found} classes, but {wanted} are scored; give the same classes in "
            "the same order"
        )
    return given.validation


def best_threshold(scores: ScoreMatrix, targets: Targets) -> float:
    """The threshold that gives all entries together the highest F1.

    Every distinct score is tried; of equal F1 the highest threshold is taken, so that the fewest
    labels are predicted.

    Args:
        scores: of any shape.
        targets: int8 of the same shape; an unknown entry counts nowhere.

    Returns:
        One of the scores; ``HALF`` if no entry is positive.
    """
    known = targets >= 0
    found, present = scores[known], targets[known] == 1
    if not present.any():
        return HALF
    order = np.argsort(-found, kind="stable")
    descending, hits = found[order], np.cumsum(present[order])
    last = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    return float(descending[last[f1.argmax()]])


def msrn_threshold(scores: ScoreMatrix, targets: Targets) -> float:
    """The logit of ``MSRN_SWEEP`` with the highest CF1 + OF1; of equal sums the lowest.

    Args:
        scores: [N, C] logits.
        targets: int8 [N, C] in {1, 0, -1}, with at least one positive.
    """
    found = (rates(predict(scores, targets, float(one)), targets) for one in MSRN_SWEEP)
    sums = np.array([one["CF1"] + one["OF1"] for one in found])
    # Sums that differ by rounding only are equal.
    return float(MSRN_SWEEP[np.flatnonzero(sums >= sums.max() - 1e-12)[0]])


# ---------------------------------------------------------------------- rankings, images, entries
def auc(given: ProtocolInput) -> Measurement:
    """AUC per class and over all entries."""
    auc_C = np.array([*map(ranking.auc, given.logits.T, given.targets.T)])
    scored = np.isfinite(auc_C)
    if not scored.any():
        raise MeasureError("no class has both a positive and a negative, so there is no AUC")
    values = {
        "macro_AUC": 100 * float(auc_C[scored].mean()),
        "micro_AUC": 100 * ranking.auc(given.logits, given.targets),
        "classes_scored": int(np.count_nonzero(scored)),
    }
    return Measurement(values, {"AUC": 100 * auc_C})


def prf_by_image(given: ProtocolInput) -> Measurement:
    """P/R/F1 at probability 0.5 per image, averaged over the images with a positive."""
    predicted = predict(given.logits, given.targets, HALF)
    # The per-class names are means over images when the matrices are transposed.
    labelled_N = (given.targets == 1).any(axis=1)
    found = rates(predicted.T, given.targets.T, labelled_N)
    names = {"CP": "IP", "CR": "IR", "CF1": "IF1", "CF1_mean": "IF1_mean"}
    return Measurement({new: 100 * found[old] for old, new in names.items()})


def label_ranking(given: ProtocolInput) -> Measurement:
    """LRAP, coverage error and ranking loss."""
    lrap, coverage, loss = ranking.label_ranking(given.logits, given.targets)
    return Measurement({"LRAP": 100 * lrap, "coverage_error": coverage, "ranking_loss": 100 * loss})


def hamming(given: ProtocolInput) -> Measurement:
    """The fraction of known entries that are wrong at probability 0.5."""
    known = given.targets >= 0
    wrong = (predict(given.logits, given.targets) != (given.targets == 1)) & known
    return Measurement({"hamming_loss": 100 * (np.count_nonzero(wrong) / np.count_nonzero(known))})


def calibration(given: ProtocolInput) -> Measurement:
    """ECE per label, its mean, and the reliability diagram."""
    ece_C = ranking.reliability_bins(given.logits, given.targets, pooled=False).error()
    bins = ranking.reliability_bins(given.logits, given.targets, pooled=True)
    values = {"ECE": 100 * float(np.nanmean(ece_C)), "ECE_pooled": 100 * float(bins.error())}
    curves = {
        "entries": bins.entries,
        "confidence": 100 * bins.confidence,
        "frequency": 100 * bins.frequency,
    }
    return Measurement(values, {"ECE": 100 * ece_C}, curves)


# ---------------------------------------------------------------------------------- parts of labels
def training_groups(given: ProtocolInput) -> Measurement:
    """The mAP of the labels that are frequent, middling and rare in training."""
    positives_C = given.train_positives
    if positives_C is None:
        raise MeasureError(
            "how many training images have each label is not known: records of older runs and of "
            "scored checkpoints do not say it. A new run does, an array train_positives [labels] "
            "in an .npz would, and groups-by-thirds needs none"
        )
    if positives_C.shape != given.targets.shape[1:]:
        raise MeasureError(
            f"training positives {positives_C.shape} must be one number for each of the "
            f"{given.targets.shape[1]} classes"
        )
    return _grouped(given, by_training_positives(positives_C))


def by_training_positives(positives_C: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """The group of each label by its training images, an index into ``GROUPS`` [C]."""
    return np.where(positives_C > HEAD, 0, np.where(positives_C < TAIL, 2, 1))


def thirds(given: ProtocolInput) -> Measurement:
    """The mAP of thirds of the labels, by positives among the scored images.

    With K labels that have an AP, a label is head if fewer than K/3 of them have more positives
    than it, else middle if fewer than 2K/3 have; equally frequent labels share a group.
    """
    positives_C = np.count_nonzero(given.targets == 1, axis=0) * scored_classes(given.targets)
    above = len(positives_C) - np.searchsorted(np.sort(positives_C), positives_C, side="right")
    scored = np.count_nonzero(positives_C)
    return _grouped(given, np.where(3 * above < scored, 0, np.where(3 * above < 2 * scored, 1, 2)))


def _grouped(given: ProtocolInput, group_C: NDArray[np.intp]) -> Measurement:
    """The mAP of each of ``GROUPS``; ``group_C`` holds each label's index into them."""
    ap_C = average_precision(given.logits, given.targets)
    values: dict[str, float] = {}
    for i, name in enumerate(GROUPS):
        members = ap_C[(group_C == i) & np.isfinite(ap_C)]
        if len(members):
            values[f"mAP_{name}"] = 100 * float(members.mean())
        values[f"labels_{name}"] = len(members)
    return Measurement(values, {"AP": 100 * ap_C, "group": np.array(GROUPS)[group_C]})


def partners(given: ProtocolInput) -> Measurement:
    """Each label with and without its usual partner."""
    partner_C = ranking.usual_partners(given.targets)
    found = ranking.partner_scores(given.logits, given.targets, partner_C)
    scored = np.isfinite(found[0, 0])
    values: dict[str, float] = {"labels_probed": int(np.count_nonzero(scored))}
    by_label: dict[str, NDArray[Any]] = {"partner": partner_C}
    for i, name in enumerate(ranking.PARTNER_METRICS):
        for state, part in zip(("with", "without"), found, strict=True):
            values[f"{name}_{state}"] = 100 * float(part[i][scored].mean())
            by_label[f"{name}_{state}"] = 100 * part[i]
    return Measurement(values, by_label)
