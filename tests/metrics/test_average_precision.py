import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbench.metrics.average_precision import average_precision, count_true
from mlbench.types import MeasureError
from mlbench_tools.scoring.ranking import interpolated_average_precision
from tests.metrics.samples import cases, sklearn_ap


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
