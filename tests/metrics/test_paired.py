import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlbench.metrics import average_precision, bootstrap_map
from mlbench.metrics.bootstrap import bootstrap_average_precision
from mlbench.metrics.paired import holm, influence, paired_bootstrap, satterthwaite, two_sided
from tests.metrics.samples import cases, pair


# --------------------------------------------------------------------------------------- influence
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


# -------------------------------------------------------------------------------- paired bootstrap
def rejections(trials, seed, resamples=200, **options):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(trials):
        first, second, targets = pair(rng, **options)
        found.append(paired_bootstrap([first], [second], targets, resamples))
    return found


def test_an_absent_difference_is_not_found_at_the_promised_rate():
    """Of 120 at a rate of 5 %, more than 13 would be a chance of one in two hundred."""
    found = rejections(120, seed=1, images=100, classes=5)
    assert sum(one.p < 0.05 for one in found) <= 13
    assert sum(one.p < 0.05 for one in found) >= 1
    covered = sum(one.low <= 0 <= one.high for one in found)
    assert covered >= 120 - 13


def test_a_true_difference_is_found():
    found = rejections(30, seed=2, images=150, classes=8, gain=0.8)
    assert sum(one.p < 0.05 and one.difference > 0 for one in found) >= 27


@pytest.mark.slow
@pytest.mark.parametrize("separation", [1.0, 2.5])
def test_the_promised_rate_over_many_samples(separation):
    """600 samples: 5 % is 30, and 5.3 more is a standard deviation."""
    found = rejections(600, seed=3, resamples=400, images=300, separation=separation)
    assert 12 <= sum(one.p < 0.05 for one in found) <= 46


@pytest.fixture
def sample():
    return pair(np.random.default_rng(7))


def test_the_draws_of_both_are_the_same_images(sample):
    first, second, targets = sample
    found = paired_bootstrap([first], [second], targets, 300)
    draws = bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300)
    low, high = np.percentile(draws - draws.mean() + found.difference, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    apart = bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300, seed=1)
    assert draws.std() < 0.9 * apart.std(), "pairing takes the images' own difficulty out"


def test_seeds_are_averaged_within_a_draw(sample):
    first, second, targets = sample
    found = paired_bootstrap([first, second], [second], targets, 300)
    alone = paired_bootstrap([first], [second], targets, 300)
    assert found.difference == pytest.approx(alone.difference / 2)
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2)
    np.testing.assert_allclose(found.classes, alone.classes / 2)


def test_swapping_the_sides_changes_the_sign_alone(sample):
    first, second, targets = sample
    one = paired_bootstrap([first], [second], targets, 300)
    other = paired_bootstrap([second], [first], targets, 300)
    assert (one.difference, one.low, one.high) == pytest.approx(
        (-other.difference, -other.high, -other.low)
    )
    assert one.p == other.p
    np.testing.assert_allclose(one.classes_p, other.classes_p)


def test_equal_models_differ_in_nothing(sample):
    first, _, targets = sample
    found = paired_bootstrap([first], [first], targets, 100)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert (found.classes_p == 1).all()


def test_p_is_never_zero_and_counts_one_draw_more(sample):
    _, second, targets = sample
    found = paired_bootstrap([10.0 * targets], [second], targets, 99)
    assert found.p == pytest.approx(2 / 100)


def test_a_class_without_a_positive_has_no_difference(sample):
    first, second, targets = sample
    targets = targets.copy()
    targets[:, 2] = 0
    found = paired_bootstrap([first], [second], targets, 100)
    nothing = [found.classes, found.classes_low, found.classes_high, found.classes_p]
    assert all(np.isnan(values[2]) and np.isfinite(values[[0, 1, 3]]).all() for values in nothing)


def test_draws_a_class_at_a_time_are_those_of_the_mean(sample):
    first, _, targets = sample
    by_class = bootstrap_average_precision(first, targets, 50)
    assert by_class.shape == (50, targets.shape[1])
    np.testing.assert_allclose(np.nanmean(by_class, axis=1), bootstrap_map(first, targets, 50))
    middle = np.nanmean(by_class, axis=0)
    np.testing.assert_allclose(middle, average_precision(first, targets), atol=0.15)


# ---------------------------------------------------------------------------------------- p values
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


def test_holm_of_a_textbook():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_two_sided_is_the_t_test():
    values = np.random.default_rng(0).standard_normal(9) + 0.4
    p = two_sided(values.mean(), values.var(ddof=1) / 9, 8)
    assert p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_no_variance_tells_nothing_apart():
    np.testing.assert_array_equal(two_sided([0.0, 3.0], [0.0, 0.0]), [1, 1])


def test_satterthwaite_is_welch():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal(5), 3 * rng.standard_normal(12)
    parts = [a.var(ddof=1) / 5, b.var(ddof=1) / 12]
    found = satterthwaite(parts, [4, 11])
    assert found == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)
    assert satterthwaite([0.0, 0.0], [4, 11]) == np.inf
