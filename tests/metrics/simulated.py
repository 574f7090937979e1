"""Two models on one sample of images, whose scores share most of their noise."""

import numpy as np

SHARED = 0.7
"""Part of the variance of the scores that both models have in common: hard images are hard."""


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
