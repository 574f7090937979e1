"""BCE, the reductions by the example of it, and its weights of positives."""

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from mlbench.contracts.made_up import known_context, made_up_context
from mlbench_plugins.layers.loss_terms import REDUCTIONS
from mlbench_plugins.losses.bce import BCE
from mlbench_plugins.losses.weighted_bce import WeightedBCE

LABELS = made_up_context(3)
LOGITS = torch.tensor([[0.5, -2.0, 3.0], [1.0, 0.0, -1.0]])
TARGETS = torch.tensor([[1, 0, -1], [0, -1, -1]], dtype=torch.int8)
POSITIVES = [25, 50, 80, 1, 0, 100]
"""Of 100 images."""


def weighted(**options):
    counts = np.full((len(POSITIVES), len(POSITIVES)), 7, np.float32)
    np.fill_diagonal(counts, POSITIVES)
    return WeightedBCE(known_context(counts, images=100), **options)


def test_reductions_over_known_labels():
    """Of which the first image has two, the second one."""
    a, b, c = softplus(torch.tensor([-0.5, -2.0, 1.0])).tolist()
    values = {r: BCE(LABELS, reduction=r)(LOGITS, TARGETS).item() for r in REDUCTIONS}
    assert values == pytest.approx(
        {"mean": ((a + b) / 2 + c) / 2, "image_sum": (a + b + c) / 2, "sum": a + b + c}
    )


def test_an_image_is_torchs_soft_margin_over_its_known_labels():
    expected = [
        torch.nn.MultiLabelSoftMarginLoss()(x[y >= 0][None], y[y >= 0][None])
        for x, y in zip(LOGITS, TARGETS, strict=True)
    ]
    torch.testing.assert_close(BCE(LABELS)(LOGITS, TARGETS), sum(expected) / len(expected))


def test_weights_are_negatives_a_positive_within_the_cap():
    weights = weighted(cap=10).pos_weight
    torch.testing.assert_close(weights, torch.tensor([3.0, 1.0, 0.25, 10.0, 10.0, 0.1]))
    assert weighted(cap=1000).pos_weight[3:].tolist() == pytest.approx([99, 1000, 0.001])


def test_value_is_the_weighted_cross_entropy_of_known_labels():
    logits = torch.tensor([[0.5, -1.0, 2.0, -3.0, 1.0, 4.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0, -1, 1, 0, 1]], dtype=torch.int8)
    terms = softplus(torch.tensor([-0.5, -1.0, 3.0, 1.0, -4.0]))
    expected = sum(w * term for w, term in zip([3, 1, 10, 1, 0.1], terms.tolist(), strict=True))
    for reduction, value in {"sum": expected, "mean": expected / 5}.items():
        loss = weighted(cap=10, reduction=reduction)
        assert loss(logits, targets).item() == pytest.approx(value, rel=1e-6)
