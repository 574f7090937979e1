"""Metrics beside scikit-learn, torchmetrics and a meter in Python as in the code of ML-GCN."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import bootstrap_average_precision, mean_over_classes
from mlbench.metrics.precision_recall import precision_recall_f1

SIZES = {"coco 2014": (40_137, 80), "vg500": (5_000, 500), "voc 2007": (4_952, 20)}


def made(n, c):
    """Make float32 logits and targets whose label frequencies fall from 0.5 to 0.0025."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, c)) < np.geomspace(0.5, 0.0025, c)).astype(np.int8)
    return (rng.standard_normal((n, c)) + 2 * targets).astype(np.float32), targets


def ours(scores, targets):
    """AP of every class; precision, recall and F1 at 0.5 and of the top 3."""
    found = average_precision(scores, targets)
    precision_recall_f1(scores, targets)
    precision_recall_f1(scores, targets, top_k=3)
    return found


def sklearn_ap(scores, targets):
    """scikit-learn: AP of every class."""
    return average_precision_score(targets, scores, average=None)


def sklearns(scores, targets):
    """scikit-learn: the same without the top 3."""
    found = sklearn_ap(scores, targets)
    for average in ("macro", "micro"):
        precision_recall_fscore_support(targets, scores >= 0, average=average, zero_division=0)
    return found


def meter(scores, targets):
    """ML-GCN's meter: AP of a class as a loop over the entries of tensors by falling score."""
    found = []
    for column, truth in zip(torch.tensor(scores).T, torch.tensor(targets).T, strict=True):
        hits = ranks = total = 0.0
        for i in column.argsort(descending=True):
            ranks += 1
            if truth[i] == 1:
                hits += 1
                total += hits / ranks
        found.append(total / hits)
    return found


def torchmetrics_way(scores, targets):
    """torchmetrics: AP of every class, precision, recall and F1, exactly."""
    library = pytest.importorskip("torchmetrics.functional.classification")
    x, y, c = torch.tensor(scores), torch.tensor(targets).long(), scores.shape[1]
    found = library.multilabel_average_precision(x, y, c, average=None, thresholds=None)
    for average in ("macro", "micro"):
        for one in ("precision", "recall", "f1_score"):
            getattr(library, f"multilabel_{one}")(x, y, c, average=average)
    return found


@pytest.mark.parametrize("size", ["coco 2014", "vg500"])
@pytest.mark.parametrize(
    ("plain", "goal"), [(sklearn_ap, 10), (sklearns, 10), (torchmetrics_way, 25), (meter, 300)]
)
def test_ap_and_f1(beside, size, plain, goal):
    """What is slow has four of the classes."""
    scores, targets = made(*SIZES[size])
    some = slice(None) if goal == 10 else slice(0, None, scores.shape[1] // 4)
    few = scores[:, some], targets[:, some]
    fast = average_precision if plain is sklearn_ap else ours
    beside(
        f"AP{' and F1' * (fast is ours)}, {size}, beside {plain.__doc__.split(':')[0]}",
        lambda: plain(*few),
        lambda: fast(scores, targets),
        goal=goal,
        parts=scores.shape[1] / few[0].shape[1],
        roof=("sorting", lambda: np.sort(scores, axis=0), 1),
        error=np.abs(np.asarray(plain(*few)) - average_precision(*few)).max().item(),
    )


@pytest.mark.parametrize("size", ["coco 2014", "voc 2007"])
def test_bootstrap(beside, size):
    """1,000 resamples of mAP; the plain way does one of them."""
    scores, targets = made(*SIZES[size])
    rng = np.random.default_rng(0)

    def naive():
        images = rng.integers(0, len(scores), len(scores))
        average_precision_score(targets[images], scores[images], average=None)

    def fast():
        mean_over_classes(bootstrap_average_precision(scores, targets))

    x, y = np.ones((2, 1 << 18), np.uint8)
    beside(
        f"1,000 resamples of mAP, {size}, beside scikit-learn",
        naive,
        fast,
        goal=50,
        parts=1000,
        roof=("byte additions", lambda: np.add(x, y, out=x), scores.size * 1000 / x.size),
    )
