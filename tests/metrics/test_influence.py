import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.metrics import average_precision
from mlbench.metrics.influence import influence
from tests.metrics.cases import cases
from tests.metrics.simulated import pair


def weighted_map(scores, targets, weights):
    """mAP with weights of images, by loops over the definition."""
    found = []
    for column, target in zip(scores.T, targets.T, strict=True):
        positives = [i for i in range(len(column)) if target[i] == 1]
        if not positives:
            continue
        total = 0.0
        for j in positives:
            above = [i for i in range(len(column)) if column[i] >= column[j]]
            hits = sum(weights[i] for i in above if target[i] == 1)
            total += weights[j] * hits / sum(weights[i] for i in above if target[i] >= 0)
        found.append(total / sum(weights[j] for j in positives))
    return np.mean(found)


@settings(deadline=None, max_examples=30)
@given(cases(), st.integers(0, 29))
def test_is_the_derivative_of_the_weighted_map(case, image):
    scores, targets = case
    image %= len(scores)
    value, found = influence(scores, targets, small_sample=False)
    assert value == pytest.approx(np.nanmean(average_precision(scores, targets)), abs=1e-12)
    step, weights = 1e-5, np.ones(len(scores))
    weights[image] += step
    above = weighted_map(scores, targets, weights)
    weights[image] -= 2 * step
    below = weighted_map(scores, targets, weights)
    assert found[image] == pytest.approx((above - below) / 2 / step, abs=1e-7)


@settings(deadline=None, max_examples=30)
@given(cases())
def test_adds_up_to_nothing(case):
    assert influence(*case)[1].sum() == pytest.approx(0, abs=1e-9)


def test_a_label_of_two_positives_weighs_the_root_of_two_more():
    rng = np.random.default_rng(0)
    scores, targets = rng.standard_normal((20, 1)), np.zeros((20, 1), np.int8)
    targets[[3, 11]] = 1
    plain = influence(scores, targets, small_sample=False)[1]
    np.testing.assert_allclose(influence(scores, targets)[1], plain * 2**0.5)


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
