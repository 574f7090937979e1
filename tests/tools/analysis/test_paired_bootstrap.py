import numpy as np
import pytest

from mlbench_tools.analysis.comparison import paired_bootstrap
from tests.metrics.samples import bootstrap_map, pair


def differences(trials, seed, resamples=200, **options):
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        first, second, targets = pair(rng, **options)
        found, _ = paired_bootstrap([first], [second], targets, resamples)
        yield found


def test_an_absent_difference_is_not_found_at_the_promised_rate():
    """Of 120 at a rate of 5 %, more than 13 would be a chance of one in two hundred."""
    found = list(differences(120, seed=1, images=100, classes=5))
    assert 1 <= sum(one.p < 0.05 for one in found) <= 13
    assert sum(one.low <= 0 <= one.high for one in found) >= 120 - 13


def test_a_true_difference_is_found():
    found = differences(30, seed=2, images=150, classes=8, gain=0.8)
    assert sum(one.p < 0.05 and one.difference > 0 for one in found) >= 27


@pytest.mark.slow
@pytest.mark.parametrize("separation", [1.0, 2.5])
def test_the_promised_rate_over_many_samples(separation):
    """600 samples: 5 % is 30, and 5.3 more is a standard deviation."""
    found = differences(600, seed=3, resamples=400, images=300, separation=separation)
    assert 12 <= sum(one.p < 0.05 for one in found) <= 46


@pytest.fixture
def sample():
    return pair(np.random.default_rng(7))


def test_the_draws_of_both_are_the_same_images(sample):
    first, second, targets = sample
    found, _ = paired_bootstrap([first], [second], targets, 300)
    draws = 100 * (bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300))
    low, high = np.percentile(draws - draws.mean() + found.difference, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-10)
    apart = bootstrap_map(first, targets, 300) - bootstrap_map(second, targets, 300, seed=1)
    assert draws.std() < 90 * apart.std(), "pairing removes the difficulty of the images"


def test_seeds_are_averaged_within_a_draw(sample):
    first, second, targets = sample
    found, classes = paired_bootstrap([first, second], [second], targets, 300)
    alone, classes_alone = paired_bootstrap([first], [second], targets, 300)
    assert found.difference == pytest.approx(alone.difference / 2)
    assert found.high - found.low == pytest.approx((alone.high - alone.low) / 2)
    for one, other in zip(classes, classes_alone, strict=True):
        assert one.difference == pytest.approx(other.difference / 2)


def test_swapping_the_sides_changes_only_the_sign(sample):
    first, second, targets = sample
    (one, classes), (other, swapped) = (
        paired_bootstrap([a], [b], targets, 300) for a, b in ((first, second), (second, first))
    )
    assert (one.difference, one.low, one.high) == pytest.approx(
        (-other.difference, -other.high, -other.low)
    )
    assert one.p == other.p
    assert [c.p for c in classes] == pytest.approx([c.p for c in swapped])


def test_p_is_never_zero_and_a_class_without_a_positive_has_no_difference(sample):
    _, second, targets = sample
    targets = targets.copy()
    targets[:, 2] = 0
    found, classes = paired_bootstrap([10.0 * targets], [second], targets, 99)
    assert found.p == pytest.approx(2 / 100)
    assert [c for c, one in enumerate(classes) if one is None] == [2]
