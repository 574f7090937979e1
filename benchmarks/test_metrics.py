"""Metrics against scikit-learn: ``pytest -n 0 benchmarks/test_metrics.py``.

Compare the ratios in brackets. Not part of the test suite, because timings depend on the machine.
"""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import bootstrap_map
from mlbench.metrics.precision_recall import precision_recall_f1

SIZES = {"coco 2014": (40_137, 80), "vg500": (5_000, 500), "voc 2007": (4_952, 20)}


def made(n, c):
    """Make float32 logits and targets whose label frequencies fall from 0.5 to 0.0025."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, c)) < np.geomspace(0.5, 0.0025, c)).astype(np.int8)
    return (rng.standard_normal((n, c)) + 2 * targets).astype(np.float32), targets


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("who", ["mlbench", "scikit-learn"])
def test_average_precision(benchmark, size, who):
    benchmark.group = f"AP of every class, {size}"
    scores, targets = made(*SIZES[size])
    if who == "mlbench":
        benchmark(average_precision, scores, targets)
    else:
        benchmark(average_precision_score, targets, scores, average=None)


@pytest.mark.parametrize("size", SIZES)
def test_precision_and_recall(benchmark, size):
    benchmark.group = f"P, R and F1 at 0.5 and for the top 3, {size}"
    scores, targets = made(*SIZES[size])

    def both():
        precision_recall_f1(scores, targets)
        precision_recall_f1(scores, targets, top_k=3)

    benchmark(both)


@pytest.mark.parametrize("size", SIZES)
def test_bootstrap(benchmark, size):
    """Time 1,000 resamples; the naive way is timed for two and extrapolated."""
    benchmark.group = "1,000 bootstrap resamples of mAP"
    scores, targets = made(*SIZES[size])
    benchmark.pedantic(bootstrap_map, (scores, targets), rounds=1)
    rng, start = np.random.default_rng(0), time.perf_counter()
    for _ in range(2):
        images = rng.integers(0, len(scores), len(scores))
        average_precision_score(targets[images], scores[images], average=None)
    naive = 500 * (time.perf_counter() - start)
    benchmark.extra_info["ratio to naive scikit-learn"] = naive / benchmark.stats.stats.min
    print(f"{size}: {naive / benchmark.stats.stats.min:.0f} times naive scikit-learn")
