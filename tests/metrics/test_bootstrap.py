import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbench.metrics import bootstrap
from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import score
from mlbench.metrics.precision_recall import NAMES, precision_recall_f1
from mlbench.types import stream
from tests.metrics.samples import bootstrap_map, cases, sklearn_ap


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
