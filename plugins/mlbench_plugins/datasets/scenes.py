"""Which objects come together in the synthetic pictures: a model whose odds are known exactly.

A picture shows one of four places, which is no label. Given the place, every object comes or not
on its own; pictures with no or with more than ``MOST`` objects are not made. So objects of one
place come together far more often than their frequencies say, and three pairs that can look alike
(``TWINS``) hardly ever share a place: their company tells them apart where their looks do not.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

NAMES = (
    *("apple", "ball", "boat", "car", "cloud", "fish"),
    *("house", "lamp", "leaf", "moon", "sun", "tree"),
)
TWINS = (("apple", "ball"), ("leaf", "fish"), ("moon", "sun"))
MOST = 5

PLACES: Mapping[str, tuple[float, Mapping[str, float]]] = {
    "sea": (0.28, {"boat": 0.7, "fish": 0.6, "sun": 0.5, "cloud": 0.35, "ball": 0.15}),
    "orchard": (0.28, {"tree": 0.75, "apple": 0.6, "leaf": 0.55, "cloud": 0.3, "sun": 0.2}),
    "street by night": (0.24, {"lamp": 0.65, "car": 0.6, "moon": 0.6, "house": 0.45}),
    "street by day": (0.2, {"ball": 0.6, "house": 0.55, "car": 0.4, "sun": 0.45, "cloud": 0.2}),
}
"""Place -> how often it is shown, and how often each object is there; others come by ``STRAY``."""
STRAY = 0.02


@functools.cache
def distribution() -> tuple[NDArray[np.int8], Matrix]:
    """All 2**C label sets as int8 [2**C, C], and the probability of each [2**C]."""
    labels = len(NAMES)
    sets = (np.arange(2**labels)[:, None] >> np.arange(labels) & 1).astype(np.int8)
    total = np.zeros(len(sets))
    for share, objects in PLACES.values():
        odds = np.array([objects.get(name, STRAY) for name in NAMES])
        total += share * np.where(sets, odds, 1 - odds).prod(axis=1)
    count = sets.sum(axis=1)
    total[(count == 0) | (count > MOST)] = 0
    return sets, total / total.sum()


def joint() -> Matrix:
    """How often two labels come together [C, C]; the diagonal is how often each label comes."""
    sets, probability = distribution()
    weighted: Matrix = sets.T.astype(np.float64) @ (sets * probability[:, None])
    return weighted


def sample(draws: Matrix) -> NDArray[np.int8]:
    """Label sets int8 [N, C] for N numbers evenly drawn from [0, 1)."""
    sets, probability = distribution()
    return sets[np.searchsorted(np.cumsum(probability)[:-1], draws, side="right")]
