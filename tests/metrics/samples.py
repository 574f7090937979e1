"""Hard cases, two similar models, and scikit-learn's answer on the known entries."""

import warnings

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from mlbench.metrics.bootstrap import bootstrap_average_precision, mean_over_classes

SHARED = 0.7
"""Part of the variance of the scores that two models have in common: hard images are hard."""


@st.composite
def cases(draw):
    """Scores and targets with ties, absent and constant classes, unknowns, or one class."""
    n, c = draw(st.integers(2, 30)), draw(st.integers(1, 5))
    # Few distinct values make ties common; the other branch makes them rare.
    coarse = st.integers(-2, 2).map(float)
    fine = st.floats(-50, 50, width=32)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    scores = draw(arrays.arrays(dtype, (n, c), elements=draw(st.sampled_from([coarse, fine]))))
    targets = draw(arrays.arrays(np.int8, (n, c), elements=st.sampled_from([1, 0, 0, -1])))
    targets[:, draw(st.integers(0, c - 1))] = draw(st.sampled_from([1, 0]))
    rows = draw(st.lists(st.integers(0, n - 1), min_size=2, max_size=2, unique=True))
    targets[rows, draw(st.integers(0, c - 1))] = 1, 0
    return scores, targets


def bootstrap_map(*case, **options):
    return mean_over_classes(bootstrap_average_precision(*case, **options))


def pair(rng, images=150, classes=8, separation=1.5, gain=0.0):
    """Scores of two models and targets; ``gain`` is how much better the first separates."""
    rates = np.geomspace(0.03, 0.3, classes)
    targets = (rng.random((images, classes)) < rates).astype(np.int8)
    common = SHARED**0.5 * rng.standard_normal((images, classes))
    own = (1 - SHARED) ** 0.5 * rng.standard_normal((2, images, classes))
    return (
        (separation + gain) * targets + common + own[0],
        separation * targets + common + own[1],
        targets,
    )


def sklearn_ap(scores, targets, weights=None):
    """[C], NaN where a class has no known positive or no known negative."""
    values = []
    for column, target in zip(scores.T, targets.T, strict=True):
        known = target >= 0
        if not {0, 1} <= set(target.tolist()):
            values.append(np.nan)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.append(average_precision_score(target[known], column[known]))
    return np.array(values)
