"""Calibrated scores and thresholds from held-out predictions, and what to expect of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from mlbench.types import SuiteError, Targets, stream
from mlbench_tools.scoring.ranking import wilson

Floats = NDArray[np.float64]

FEWEST = 10
"""Positives and negatives that a label needs for a calibration and a threshold of its own."""
FOLDS = 5


@dataclass(frozen=True)
class Target:
    """The aim of thresholds: the best F1, or the best recall (precision) at a given precision
    (recall).
    """  # noqa: D205

    name: str
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read ``f1``, ``precision=0.95`` or ``recall=0.9``.

        Raises:
            SuiteError: it is something else.
        """
        name, _, value = text.partition("=")
        if text == "f1":
            return cls("f1")
        with suppress(ValueError):
            if name in ("precision", "recall") and 0 < float(value) <= 1:
                return cls(name, float(value))
        raise SuiteError(f"--target {text!r}: give f1, precision=0.95 or recall=0.9")

    def reached(self, precision: float, recall: float) -> bool:
        """True if the wanted precision or recall is reached; the best F1 always is."""
        given = {"precision": precision, "recall": recall}.get(self.name, 1.0)
        return not given < self.value


# ------------------------------------------------------------------------------------------ fitting
def fit_sigmoid(logits_N: Floats, present_N: NDArray[np.bool_]) -> tuple[float, float]:
    """(slope, offset) of the probability sigmoid(slope * logit + offset).

    J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets, which
    are 1 and 0 shrunk by one image each, so that few images give no certainty.
    """
    positives, negatives = int(present_N.sum()), int((~present_N).sum())
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    wanted_N = np.where(present_N, high, low)
    # Standardised, as logits of 0.01 or 100 would need a step of their own.
    centre, scale = float(logits_N.mean()), float(logits_N.std()) or 1.0
    z_N = (logits_N - centre) / scale

    def objective(parameters: Floats) -> tuple[float, Floats]:
        t_N = parameters[0] * z_N + parameters[1]
        loss = np.logaddexp(0, t_N) - wanted_N * t_N
        gradient_N = expit(t_N) - wanted_N
        return float(loss.mean()), np.array([(gradient_N * z_N).mean(), gradient_N.mean()])

    slope, offset = minimize(objective, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return float(slope / scale), float(offset - slope * centre / scale)


def best_threshold(scores_N: Floats, present_N: NDArray[np.bool_], target: Target) -> float:
    """The best threshold for a target on these images; scores at or above it count as present.

    It lies halfway between two scores. If a precision cannot be reached, it is the threshold with
    the highest precision. The other measure decides between equals.
    """
    order = np.argsort(-scores_N, kind="stable")
    ranked_N, hits_N = scores_N[order], np.cumsum(present_N[order])
    last = np.append(np.flatnonzero(np.diff(ranked_N)), len(ranked_N) - 1)  # of equal scores
    precision, recall = hits_N[last] / (last + 1), hits_N[last] / max(int(present_N.sum()), 1)
    if target.name == "f1":
        chosen = int(np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    else:
        given, best = (recall, precision) if target.name == "recall" else (precision, recall)
        # The last key counts most; a measure beyond the target is worth no more than the target.
        chosen = int(np.lexsort((given, best, np.minimum(given, target.value)))[-1])
    lowest = float(ranked_N[last[chosen]])
    below = ranked_N[last[chosen] + 1] if last[chosen] + 1 < len(ranked_N) else 0.0
    return float((lowest + below) / 2)


@dataclass(frozen=True)
class Fit:
    """Calibration (slope, offset) and threshold by label; ``shared``: the first is not its own."""

    calibration: tuple[tuple[float, float], ...]
    thresholds: tuple[float, ...]
    shared: tuple[bool, ...]

    def present(self, logits_NC: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Bool [N, C], True for labels that count as present."""
        slope_C, offset_C = np.array(self.calibration).T
        scores_NC = expit(slope_C * logits_NC + offset_C)
        found: NDArray[np.bool_] = scores_NC >= np.array(self.thresholds)
        return found


def assert_enough(targets_NC: Targets) -> None:
    """Raise ``SuiteError`` for fewer than ``FEWEST`` positives or negatives over all labels."""
    present, absent = int((targets_NC == 1).sum()), int((targets_NC == 0).sum())
    if min(present, absent) < FEWEST:
        raise SuiteError(
            f"{present} present and {absent} absent labels are held out; at least {FEWEST} of each "
            "are needed: hold out more images"
        )


def fit(
    logits_NC: NDArray[np.floating], targets_NC: Targets, target: Target, per_label: bool
) -> Fit:
    """Calibrate every label and choose thresholds.

    A label with fewer than ``FEWEST`` known positives or negatives, or whose scores rank its
    positives below its negatives, takes what fits all labels together.

    Args:
        logits_NC: held-out logits.
        targets_NC: int8 in {1, 0, -1 unknown}; unknown ones are left out.
        target: what the thresholds aim at.
        per_label: one threshold a label; else one for all.
    """
    known = targets_NC >= 0
    everything = logits_NC[known].astype(np.float64), targets_NC[known] == 1
    common = fit_sigmoid(*everything)
    calibration, shared = [], []
    for c in range(targets_NC.shape[1]):
        logits_N, present_N = logits_NC[known[:, c], c], targets_NC[known[:, c], c] == 1
        enough = min(present_N.sum(), (~present_N).sum()) >= FEWEST
        found = fit_sigmoid(logits_N.astype(np.float64), present_N) if enough else common
        shared.append(not enough or found[0] <= 0)
        calibration.append(common if shared[-1] else found)
    slope_C, offset_C = np.array(calibration).T
    scores_NC = expit(slope_C * logits_NC + offset_C)
    one = best_threshold(scores_NC[known], targets_NC[known] == 1, target)
    thresholds = [
        best_threshold(scores_NC[known[:, c], c], targets_NC[known[:, c], c] == 1, target)
        if per_label and not shared[c]
        else one
        for c in range(targets_NC.shape[1])
    ]
    return Fit(tuple(calibration), tuple(thresholds), tuple(shared))


# ---------------------------------------------------------------------------------- what to expect
@dataclass(frozen=True)
class Expectation:
    """Precision or recall in [0, 1], counted over ``of`` entries, with its 95 % interval."""

    value: float
    low: float
    high: float
    of: int


def _expectation(hits: int, of: int) -> Expectation:
    if not of:
        return Expectation(float("nan"), 0.0, 1.0, 0)
    return Expectation(hits / of, *wilson(hits / of, of), of)


def expect(
    logits_NC: NDArray[np.floating], targets_NC: Targets, refit: Callable[..., Fit]
) -> list[tuple[Expectation, Expectation]]:
    """(precision, recall) of all labels together, then of each, on images not fitted to.

    Everything is fitted to four fifths of the images and judged on the rest, five times over.
    """
    fold_N = stream("folds").permutation(len(logits_NC)) % FOLDS
    present_NC = np.zeros(targets_NC.shape, bool)
    for fold in range(FOLDS):
        rest, mine = fold_N != fold, fold_N == fold
        present_NC[mine] = refit(logits_NC[rest], targets_NC[rest]).present(logits_NC[mine])
    return judge(present_NC, targets_NC)


def judge(
    present_NC: NDArray[np.bool_], targets_NC: Targets
) -> list[tuple[Expectation, Expectation]]:
    """(precision, recall) of decisions, of all labels together, then of each."""
    known_NC, true_NC = targets_NC >= 0, targets_NC == 1
    hits_C = (present_NC & true_NC).sum(axis=0)
    said_C, there_C = (present_NC & known_NC).sum(axis=0), true_NC.sum(axis=0)
    rows = [(hits_C.sum(), said_C.sum(), there_C.sum()), *zip(hits_C, said_C, there_C, strict=True)]
    return [(_expectation(int(h), int(s)), _expectation(int(h), int(t))) for h, s, t in rows]
