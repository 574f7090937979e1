"""Records whose scores are those of predictions that lie beside them."""

import numpy as np

from mlbench.metrics.average_precision import average_precision
from mlbench.types import Predictions
from tests.store.made import NAMES, kept, made_record, made_scores


def labels(images=400, seed=0):
    return (np.random.default_rng(seed).random((images, len(NAMES))) < 0.3).astype(np.int8)


def write(store, method="ssgrl", quality=1.0, noise=1, targets=None, **fields):
    """Keep a run that tells labels apart by ``quality``; its own noise is drawn from ``noise``."""
    targets = labels() if targets is None else targets
    common = np.random.default_rng(99).standard_normal(targets.shape)
    own = np.random.default_rng(noise).standard_normal(targets.shape)
    logits = (quality * targets + 0.8 * common + 0.6 * own).astype(np.float32)
    by_class = 100 * average_precision(logits, targets)
    record = made_record(
        method,
        scores=made_scores(float(by_class.mean())),
        average_precision=tuple(map(float, by_class)),
        test_images=len(targets),
        **fields,
    )
    keys = tuple(f"{i:06d}" for i in range(len(targets)))
    order = np.random.default_rng(noise).permutation(len(targets))  # no order is promised
    predictions = Predictions(logits[order], targets[order], tuple(keys[i] for i in order))
    return kept(store, record, predictions)
