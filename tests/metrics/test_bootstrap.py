import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.metrics import bootstrap, bootstrap_map
from tests.metrics.cases import cases
from tests.metrics.reference import sklearn_ap


def drawn(n, labelled, resamples, seed):
    """The same draws, image by image."""
    rng = np.random.default_rng(seed)
    while resamples:
        images = rng.integers(0, n, n)
        if labelled[images].any():
            resamples -= 1
            yield images


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(0, 9))
def test_equals_scikit_learn_on_the_drawn_images(case, seed):
    scores, targets = case
    labelled = (targets == 1).any(axis=1)
    expected = [
        np.nanmean(sklearn_ap(scores[images], targets[images]))
        for images in drawn(len(scores), labelled, 5, seed)
    ]
    found = bootstrap_map(scores, targets, resamples=5, seed=seed)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    targets = (rng.random((400, 6)) < 0.2).astype(np.int8)
    targets[rng.random((400, 6)) < 0.05] = -1
    return rng.standard_normal((400, 6)) + targets, targets


def test_the_size_of_a_block_changes_nothing(sample, monkeypatch):
    whole = bootstrap_map(*sample, resamples=50)
    monkeypatch.setattr(bootstrap, "BLOCK", 400 * 7)
    np.testing.assert_allclose(bootstrap_map(*sample, resamples=50), whole, rtol=0, atol=1e-12)


def test_a_seed_repeats_and_another_does_not(sample):
    first = bootstrap_map(*sample, resamples=20, seed=1)
    np.testing.assert_array_equal(first, bootstrap_map(*sample, resamples=20, seed=1))
    assert (first != bootstrap_map(*sample, resamples=20, seed=2)).any()


def test_a_draw_without_a_positive_is_drawn_again():
    targets = np.zeros((8, 2), dtype=np.int8)
    targets[3, 1] = 1
    found = bootstrap_map(np.zeros((8, 2)), targets, resamples=200)
    assert np.isfinite(found).all() and len(found) == 200
