"""Labels that are nowhere known to be absent, whose AP no score can change; saturated scores."""

import numpy as np
import pytest
from hypothesis import given, settings

from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import bootstrap_average_precision, point_scores, remarks, saturation
from mlbench.metrics.paired import influence
from mlbench_tools.analysis.comparison import paired_bootstrap
from mlbench_tools.scoring.measures import ProtocolInput
from mlbench_tools.scoring.protocols import measure
from tests.metrics.samples import cases

BY_LABEL = ("ap", "ap-interpolated", "ap-11-point", "prf-0.5", "prf-0.8", "groups-by-thirds")
BY_LABEL += ("groups", "auc", "ap+absent-zero", "prf-0.5+absent-zero")
COUNTS = ("classes_left_out", "micro_AUC", "OP", "OR", "OF1")
"""Numbers that are of all labels together."""


def with_constant(scores, targets):
    """The same labels, and behind them two that are present or unknown everywhere."""
    n = len(targets)
    rng = np.random.default_rng(n)
    partly = np.where(np.arange(n) % 2, 1, -1)
    more = np.stack([np.ones(n), partly], 1).astype(np.int8)
    wider = np.hstack([scores, rng.standard_normal((n, 2)).astype(scores.dtype)])
    return wider, np.hstack([targets, more])


@settings(max_examples=10)
@given(cases())
def test_they_change_no_bit_of_the_others(case):
    scores, targets = case
    labels = targets.shape[1]
    wide = with_constant(scores, targets)
    alone, found = average_precision(scores, targets), average_precision(*wide)
    np.testing.assert_array_equal(found[:labels], alone)
    assert np.isnan(found[labels:]).all()
    np.testing.assert_array_equal(influence(*wide)[1], influence(scores, targets)[1])
    draws = bootstrap_average_precision(scores, targets, 9)
    np.testing.assert_array_equal(bootstrap_average_precision(*wide, 9)[:, :labels], draws)
    whole, by_label = paired_bootstrap([scores], [-scores], targets, 9)
    wider, more = paired_bootstrap([wide[0]], [-wide[0]], wide[1], 9)
    assert wider == whole and more == [*by_label, None, None]


@settings(max_examples=10)
@given(cases())
def test_no_mean_over_labels_counts_them(case):
    logits, targets = case
    train = np.arange(targets.shape[1] + 2) * 30
    wide, _ = measure(ProtocolInput(*with_constant(logits, targets), None, train), BY_LABEL)
    alone, _ = measure(ProtocolInput(logits, targets, None, train[:-2]), BY_LABEL)
    for name, measured in alone.items():
        kept = {k: v for k, v in measured.values.items() if k not in COUNTS}
        assert kept == {k: v for k, v in wide[name].values.items() if k not in COUNTS}, name
    values, _ = point_scores(*with_constant(logits, targets))
    before, _ = point_scores(logits, targets)
    assert values["classes_left_out"] == before["classes_left_out"] + 2
    assert [values[k] for k in ("mAP", "CF1")] == [before[k] for k in ("mAP", "CF1")]


def test_they_are_named_with_their_counts():
    logits, targets = with_constant(np.eye(4), np.eye(4, dtype=np.int8))
    (remark,) = remarks(logits, targets, list("abcdef"))
    assert remark.startswith("2 of 6 labels have no AP")
    assert "e (4 present, 0 absent, 0 unknown), f (2 present, 0 absent, 2 unknown)" in remark


def test_scores_that_saturate_are_remarked_with_the_worst_labels():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 3)) < 0.3).astype(np.int8)
    logits = rng.standard_normal((3000, 3)) + np.array([12, 7, 0]) * targets
    half = (1 / (1 + np.exp(-logits))).astype(np.float16).astype(np.float64)
    tied = np.where(half == 1, 1000.0, logits)
    shares = saturation(tied, targets)
    assert shares == pytest.approx((half == 1).mean(axis=0)) and shares[0] > 0.25 > shares[1] > 0
    (remark,) = remarks(tied, targets, ("a", "b", "c"))
    assert f"2 of 3 labels tie at probability 0 or 1: a ({shares[0]:.1%}), b (" in remark
    assert remarks(logits, targets, ("a", "b", "c")) == []
    assert saturation(np.full((9, 1), 2.0), np.ones((9, 1), np.int8)) == 0, "ties in the middle"
    assert saturation(np.array([[-8.0], [-8], [0], [9]]), np.zeros((4, 1), np.int8)) == 0.5
