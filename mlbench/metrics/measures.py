"""From a case to the numbers of each protocol; what they mean stands in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbench.metrics import groups, ranking
from mlbench.metrics.average_precision import ScoreMatrix, average_precision, check
from mlbench.metrics.calibration import probabilities, reliability
from mlbench.metrics.measurement import Case, Labelled, Measurement
from mlbench.metrics.partners import NAMES, probe
from mlbench.metrics.precision_recall import predict, rates
from mlbench.metrics.protocol import point_scores
from mlbench.metrics.thresholds import HALF, best_threshold, best_thresholds, msrn_threshold
from mlbench.types import MeasureError, Targets

ByClass = Callable[[ScoreMatrix, Targets], NDArray[np.float64]]


# --------------------------------------------------------------------------------- the canonical
def canonical(case: Case) -> Measurement:
    """What records carry, without the bootstrap interval."""
    values, by_class = point_scores(case.logits, case.targets)
    return Measurement(values, {"AP": 100 * by_class})


# ---------------------------------------------------------------------------------------------- AP
def ap(rule: ByClass, case: Case) -> Measurement:
    """Mean of a rule's AP over classes."""
    absent_C = _absent(case)
    ap_C = rule(case.logits, case.targets)
    if case.absent == "zero":
        ap_C = np.where(absent_C, 0.0, ap_C)
    scored = np.isfinite(ap_C)
    values = {
        "mAP": 100 * float(ap_C[scored].mean()),
        "classes_scored": int(np.count_nonzero(scored)),
        "classes_left_out": int(np.count_nonzero(~scored)),
    }
    return Measurement(values, {"AP": 100 * ap_C})


def _absent(case: Case) -> NDArray[np.bool_]:
    """Which classes have no positive [C]; refused where the case says so."""
    absent_C: NDArray[np.bool_] = ~(case.targets == 1).any(axis=0)
    if case.absent == "refused" and absent_C.any():
        raise MeasureError(
            f"{np.count_nonzero(absent_C)} of {len(absent_C)} classes have no positive, the first "
            f"is {case.label(int(absent_C.argmax()))}, and this protocol refuses such a split"
        )
    return absent_C


# ------------------------------------------------------------------------------------------ P/R/F1
def _prf(
    case: Case, threshold: float | NDArray[np.float64], top_k: int | None = None
) -> dict[str, float]:
    _absent(case)
    predicted = predict(case.logits, case.targets, threshold, top_k)
    return _percent(rates(predicted, case.targets, absent_is_zero=case.absent == "zero"))


def fixed(threshold: float, top_k: int | None, case: Case) -> Measurement:
    """P/R/F1 at a logit."""
    return Measurement(_prf(case, threshold, top_k))


def by_image(case: Case) -> Measurement:
    """P/R/F1 per image, averaged over those with a positive."""
    predicted = predict(case.logits, case.targets, HALF)
    # The per-class names are means over images when the matrices lie on their side.
    found = rates(predicted.T, case.targets.T)
    names = {"CP": "IP", "CR": "IR", "CF1": "IF1", "CF1_mean": "IF1_mean"}
    return Measurement({new: 100 * found[old] for old, new in names.items()})


def on_validation(case: Case) -> Measurement:
    """P/R/F1 at the logit with the highest OF1 on validation images."""
    threshold = best_threshold(*_validation(case))
    return Measurement(_prf(case, threshold) | _told(threshold))


def on_validation_by_class(case: Case) -> Measurement:
    """P/R/F1 at a logit a class, with its highest F1 on validation images."""
    logits, targets = _validation(case)
    thresholds_C = best_thresholds(logits, targets)
    without = ~(targets == 1).any(axis=0)
    values = _prf(case, thresholds_C) | {"thresholds_not_found": int(np.count_nonzero(without))}
    by_label = {"threshold_probability": probabilities(thresholds_C)}
    return Measurement(values, by_label | {"threshold_logit": thresholds_C})


def _told(threshold: float) -> dict[str, float]:
    """A threshold as the names of protocols have it, and as scores are compared with it."""
    chance = float(probabilities(np.array(threshold)))
    return {"threshold_probability": chance, "threshold_logit": threshold}


def _validation(case: Case) -> Labelled:
    if case.validation is None:
        raise MeasureError(
            "there are no predictions on validation images, and only the oracle picks thresholds "
            "on the images that are scored"
        )
    try:
        check(*case.validation)
    except MeasureError as error:
        raise MeasureError(f"validation split: {error}") from error
    found, wanted = case.validation.targets.shape[1], case.targets.shape[1]
    if found != wanted:
        raise MeasureError(
            f"validation split: {found} classes, but {wanted} are scored; give the same classes in "
            "the same order"
        )
    return case.validation


def oracle(case: Case) -> Measurement:
    """P/R/F1 at a logit that is picked on the scored images."""
    threshold = msrn_threshold(case.logits, case.targets)
    return Measurement(_prf(case, threshold) | _told(threshold))


# ------------------------------------------------------------------- rankings, within and across
def auc(case: Case) -> Measurement:
    """AUC per class and over all entries."""
    auc_C = ranking.auc_by_class(case.logits, case.targets)
    scored = np.isfinite(auc_C)
    if not scored.any():
        raise MeasureError("no class has both a positive and a negative, so there is no AUC")
    values = {
        "macro_AUC": 100 * float(auc_C[scored].mean()),
        "micro_AUC": 100 * ranking.auc(case.logits, case.targets),
        "classes_scored": int(np.count_nonzero(scored)),
    }
    return Measurement(values, {"AUC": 100 * auc_C})


def label_ranking(case: Case) -> Measurement:
    """LRAP, coverage error and ranking loss."""
    found = ranking.label_ranking(case.logits, case.targets)
    values = {"LRAP": 100 * found.lrap, "coverage_error": found.coverage}
    return Measurement(values | {"ranking_loss": 100 * found.loss})


def hamming(case: Case) -> Measurement:
    """Fraction of known entries that are wrong at probability 0.5."""
    known = case.targets >= 0
    wrong = (predict(case.logits, case.targets) != (case.targets == 1)) & known
    loss = np.count_nonzero(wrong) / np.count_nonzero(known)
    return Measurement({"hamming_loss": 100 * float(loss)})


# ------------------------------------------------------------------------------------- calibration
def calibration(case: Case) -> Measurement:
    """ECE per label, its mean, and the reliability diagram."""
    ece_C = reliability(case.logits, case.targets).error()
    together = reliability(case.logits, case.targets, pooled=True)
    values = {"ECE": 100 * float(np.nanmean(ece_C)), "ECE_pooled": 100 * float(together.error())}
    curves = {
        "entries": together.entries,
        "confidence": 100 * together.confidence,
        "frequency": 100 * together.frequency,
    }
    return Measurement(values, {"ECE": 100 * ece_C}, curves)


# -------------------------------------------------------------------------------- groups, partners
def training_groups(case: Case) -> Measurement:
    """MAP of labels that are frequent, middling and rare in training."""
    if case.train_positives is None:
        raise MeasureError(
            "how many training images have each label is not known: records of older runs and of "
            "scored checkpoints do not say it. A new run does, an array train_positives [labels] "
            "in an .npz would, and groups-by-thirds needs none"
        )
    if case.train_positives.shape != case.targets.shape[1:]:
        raise MeasureError(
            f"training positives {case.train_positives.shape} must be one number for each of the "
            f"{case.targets.shape[1]} classes"
        )
    return _grouped(case, groups.by_training_positives(case.train_positives))


def thirds(case: Case) -> Measurement:
    """MAP of thirds of the labels, by positives among the scored images."""
    return _grouped(case, groups.by_thirds(np.count_nonzero(case.targets == 1, axis=0)))


def _grouped(case: Case, group_C: NDArray[np.intp]) -> Measurement:
    ap_C = average_precision(case.logits, case.targets)
    values: dict[str, float] = {}
    for i, name in enumerate(groups.GROUPS):
        own = ap_C[(group_C == i) & np.isfinite(ap_C)]
        if len(own):
            values[f"mAP_{name}"] = 100 * float(own.mean())
        values[f"labels_{name}"] = len(own)
    return Measurement(values, {"AP": 100 * ap_C, "group": np.array(groups.GROUPS)[group_C]})


def partners(case: Case) -> Measurement:
    """Each label with and without its usual partner."""
    found = probe(case.logits, case.targets)
    probed = np.isfinite(found.present[0])
    if not probed.any():
        raise MeasureError(
            "no label has positives and negatives both with and without its usual partner"
        )
    values: dict[str, float] = {"labels_probed": int(np.count_nonzero(probed))}
    by_label: dict[str, NDArray[Any]] = {"partner": found.partner}
    for i, name in enumerate(NAMES):
        for state, part in (("with", found.present[i]), ("without", found.absent[i])):
            values[f"{name}_{state}"] = 100 * float(part[probed].mean())
            by_label[f"{name}_{state}"] = 100 * part
    return Measurement(values, by_label)


def _percent(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: 100 * share for name, share in shares.items()}
