import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.paired import holm, influence, satterthwaite, two_sided
from tests.metrics.samples import cases, pair


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
