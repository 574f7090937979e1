import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mlbench.metrics.significance import holm, satterthwaite, two_sided


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
