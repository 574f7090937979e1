"""AP, its mean, interval and differences against references; labels without AP; saturation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlbench.metrics import bootstrap
from mlbench.metrics.average_precision import average_precision, count_true
from mlbench.metrics.bootstrap import (
    bootstrap_average_precision,
    point_scores,
    remarks,
    saturation,
    score,
)
from mlbench.metrics.paired import holm, influence, satterthwaite, two_sided
from mlbench.metrics.precision_recall import NAMES, precision_recall_f1
from mlbench.types import MeasureError, stream
from mlbench_tools.analysis.comparison import paired_bootstrap
from mlbench_tools.scoring.measures import ProtocolInput
from mlbench_tools.scoring.protocols import measure
from mlbench_tools.scoring.ranking import interpolated_average_precision
from tests.metrics.samples import bootstrap_map, cases, pair, sklearn_ap


def weighted_map(scores, targets, weights):
    """mAP with weights of images, by loops over the definition.

    The AP of a label of P positives counts sqrt(P / (P - 1)) times, of one positive like of two.
    """
    found = []
    for column, target in zip(scores.T, targets.T, strict=True):
        positives = [i for i in range(len(column)) if target[i] == 1]
        if not positives or 0 not in target:
            continue
        total = 0.0
        for j in positives:
            above = [i for i in range(len(column)) if column[i] >= column[j]]
            hits = sum(weights[i] for i in above if target[i] == 1)
            total += weights[j] * hits / sum(weights[i] for i in above if target[i] >= 0)
        few = max(len(positives), 2)
        found.append(total / sum(weights[j] for j in positives) * (few / (few - 1)) ** 0.5)
    return np.mean(found)


@settings(max_examples=30)
@given(cases(), st.integers(0, 29))
def test_is_the_derivative_of_the_weighted_map(case, image):
    scores, targets = case
    image %= len(scores)
    value, found = influence(scores, targets)
    assert value == pytest.approx(np.nanmean(average_precision(scores, targets)), abs=1e-12)
    assert found.sum() == pytest.approx(0, abs=1e-9)
    step, weights = 1e-5, np.ones(len(scores))
    weights[image] += step
    above = weighted_map(scores, targets, weights)
    weights[image] -= 2 * step
    below = weighted_map(scores, targets, weights)
    assert found[image] == pytest.approx((above - below) / 2 / step, abs=1e-7)


@pytest.mark.parametrize("separation", [1.0, 2.5])
def test_its_deviation_of_a_difference_is_the_true_one(separation):
    """Over 150 samples of 300 images; the true deviation itself is known to 6 %."""
    rng = np.random.default_rng(5)
    differences, variances = [], []
    for _ in range(150):
        first, second, targets = pair(rng, images=300, classes=12, separation=separation)
        (a, of_a), (b, of_b) = influence(first, targets), influence(second, targets)
        differences.append(a - b)
        variances.append(((of_a - of_b) ** 2).sum())
    ratio = np.mean(variances) ** 0.5 / np.std(differences)
    assert 0.88 < ratio < 1.2


def by_hand(p):
    """Step down: the smallest against all, the next against one fewer, until one is kept."""
    left, adjusted, highest = sorted(range(len(p)), key=p.__getitem__), [0.0] * len(p), 0.0
    for done, i in enumerate(left):
        highest = max(highest, p[i] * (len(p) - done))
        adjusted[i] = min(1.0, highest)
    return adjusted


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_steps_down(p):
    np.testing.assert_allclose(holm(p), by_hand(p))


def test_two_sided_is_the_t_test():
    values = np.random.default_rng(0).standard_normal(9) + 0.4
    p = two_sided(values.mean(), values.var(ddof=1) / 9, 8)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_no_variance_tells_nothing_apart():
    np.testing.assert_array_equal(two_sided([0.0, 3.0], [0.0, 0.0]), [1, 1])


def test_satterthwaite_is_welch():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(5), 3 * rng.standard_normal(12)
    found = satterthwaite([a.var(ddof=1) / 5, b.var(ddof=1) / 12], [4, 11])
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)
    assert satterthwaite([0.0, 0.0], [4, 11]) == np.inf


@given(cases())
def test_equals_scikit_learn(case):
    scores, targets = case
    found, expected = average_precision(scores, targets), sklearn_ap(scores, targets)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@given(cases(), st.randoms())
def test_the_order_of_images_changes_no_bit(case, random):
    scores, targets = case
    order = random.sample(range(len(scores)), len(scores))
    for metric in (average_precision, interpolated_average_precision):
        np.testing.assert_array_equal(
            metric(scores, targets), metric(scores[order], targets[order])
        )


@pytest.mark.parametrize("images", [0, 1, 255, 256, 1021])
def test_counts_are_those_of_numpy(images):
    mask = np.random.default_rng(images).random((images, 7)) < np.linspace(0, 1, 7)
    for one in (mask, mask.T[:, :300].T, mask[::2]):
        assert count_true(one).tolist() == np.count_nonzero(one, axis=0).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_their_place(bad):
    scores = np.zeros((3, 2), dtype=np.float32)
    scores[2, 1] = scores[1, 0] = bad
    with pytest.raises(MeasureError, match=r"2 of 6 scores.*image 1, class 0"):
        average_precision(scores, np.ones((3, 2), dtype=np.int8))


@pytest.mark.parametrize("metric", [average_precision, interpolated_average_precision])
@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        (
            np.zeros((2, 2)),
            np.array([[0, -1], [0, 0]]),
            "none of 2 labels.*2 images: label 0 .0 present, 2",
        ),
        (np.zeros((2, 2)), np.ones((2, 3)), r"scores \(2, 2\) and targets \(2, 3\)"),
        (np.zeros((0, 2)), np.ones((0, 2)), "none of 2 labels.*0 images"),
        (np.zeros((9, 1)), np.ones((9, 1)), "label 0 .9 present, 0 absent.*Add images"),
        (np.zeros((1, 2)), np.array([[1, 2]]), "image 0, class 1 has 2"),
        (np.zeros((2, 2)), np.array([[1, -2], [0, 0]]), "image 0, class 1 has -2"),
    ],
)
def test_what_cannot_be_measured_is_refused(metric, scores, targets, message):
    with pytest.raises(MeasureError, match=message):
        metric(scores, targets.astype(np.int8))


def drawn(targets, resamples, seed):
    """The same draws, image by image; one on which nothing can be scored is drawn again."""
    rng, n = stream("bootstrap", seed), len(targets)
    while resamples:
        images = rng.integers(0, n, n)
        if any({0, 1} <= set(column) for column in targets[images].T.tolist()):
            resamples -= 1
            yield images


@settings(max_examples=40)
@given(cases(), st.integers(0, 9))
def test_equals_scikit_learn_on_the_drawn_images(case, seed):
    scores, targets = case
    expected = [
        np.nanmean(sklearn_ap(scores[images], targets[images]))
        for images in drawn(targets, 5, seed)
    ]
    found = bootstrap_map(scores, targets, resamples=5, seed=seed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    targets = (rng.random((400, 6)) < 0.2).astype(np.int8)
    targets[rng.random((400, 6)) < 0.05] = -1
    return rng.standard_normal((400, 6)) + targets, targets


def test_a_seed_repeats_in_blocks_of_any_size_and_another_does_not(sample, monkeypatch):
    whole = bootstrap_map(*sample, resamples=50)
    np.testing.assert_array_equal(bootstrap_map(*sample, resamples=50), whole)
    assert (bootstrap_map(*sample, resamples=50, seed=2) != whole).any()
    monkeypatch.setattr(bootstrap, "BLOCK", 400 * 7)
    np.testing.assert_allclose(bootstrap_map(*sample, resamples=50), whole, rtol=0, atol=1e-12)


def test_it_says_how_far_it_is_at_every_label(sample, monkeypatch):
    monkeypatch.setattr(bootstrap, "BLOCK", 400 * 20)
    told = []
    score(*sample, resamples=50, count=lambda *now: told.append(now))
    blocks = [20 * c for c in range(1, 7)], [120 + 20 * c for c in range(1, 7)]
    last = [240 + 10 * c for c in range(1, 7)]
    assert told == [(done, 300) for done in ([0] * 6 + blocks[0] + blocks[1] + last)]


def test_the_score_is_its_parts_in_percent(sample):
    scores, partly = sample
    found, by_class = score(scores, partly, resamples=100)
    assert by_class == pytest.approx(100 * average_precision(scores, partly))
    assert found.mAP == pytest.approx(np.mean(by_class))
    draws = 100 * bootstrap_map(scores, partly, resamples=100)
    centred = draws - draws.mean() + found.mAP
    assert (found.mAP_low, found.mAP_high) == pytest.approx(np.percentile(centred, (2.5, 97.5)))
    assert found.mAP_low < found.mAP < found.mAP_high
    plain, top3 = precision_recall_f1(scores, partly), precision_recall_f1(scores, partly, top_k=3)
    for name in NAMES:
        assert getattr(found, name) == pytest.approx(100 * plain[name])
        assert getattr(found, f"top3_{name}") == pytest.approx(100 * top3[name])


def test_absent_and_constant_classes_are_counted_and_never_nan():
    targets = np.array([[1, 0, -1, 1, 1], [0, 0, -1, 1, -1]], dtype=np.int8)
    found, by_class = score(np.array([[1.0, 2, 3, 4, 5], [0, 1, 2, 5, 6]]), targets, resamples=20)
    assert (found.classes_scored, found.classes_left_out) == (1, 4)
    assert by_class == (100.0, None, None, None, None)
    assert found.mAP == 100
    assert "NaN" not in found.model_dump_json() and "null" not in found.model_dump_json()


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
