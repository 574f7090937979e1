import numpy as np
import pytest

from mlbench.metrics import average_precision, bootstrap_map
from mlbench.metrics.bootstrap import bootstrap_average_precision
from mlbench.metrics.paired import paired_bootstrap
from mlbench.types import MeasureError
from tests.metrics.simulated import pair


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


def test_a_side_without_runs_is_refused(sample):
    with pytest.raises(MeasureError, match="at least one run on either side"):
        paired_bootstrap([], [sample[1]], sample[2])


def test_draws_a_class_at_a_time_are_those_of_the_mean(sample):
    first, _, targets = sample
    by_class = bootstrap_average_precision(first, targets, 50)
    assert by_class.shape == (50, targets.shape[1])
    np.testing.assert_allclose(np.nanmean(by_class, axis=1), bootstrap_map(first, targets, 50))
    middle = np.nanmean(by_class, axis=0)
    np.testing.assert_allclose(middle, average_precision(first, targets), atol=0.15)
