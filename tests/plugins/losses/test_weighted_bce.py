"""Positives weigh what the training split says, within the cap."""

import math

import numpy as np
import pytest
import torch

from mlbench.contracts.made_up import known_context
from mlbench_plugins.losses.weighted_bce import WeightedBCE

POSITIVES = [25, 50, 80, 1, 0, 100]
"""Of 100 images."""


def context(positives=POSITIVES):
    counts = np.full((len(positives), len(positives)), 7, np.float32)
    np.fill_diagonal(counts, positives)
    return known_context(counts, images=100)


def test_weights_are_negatives_a_positive_within_the_cap():
    weights = WeightedBCE(context(), cap=10).pos_weight
    torch.testing.assert_close(weights, torch.tensor([3.0, 1.0, 0.25, 10.0, 10.0, 0.1]))
    assert WeightedBCE(context(), cap=1000).pos_weight[3:].tolist() == pytest.approx(
        [99, 1000, 0.001]
    )


def test_value_is_the_weighted_cross_entropy_of_known_labels():
    logits = torch.tensor([[0.5, -1.0, 2.0, -3.0, 1.0, 4.0]], dtype=torch.float64)
    targets = torch.tensor([[1, 0, -1, 1, 0, 1]], dtype=torch.int8)

    def nll(x):
        return math.log1p(math.exp(-x))

    expected = [3 * nll(0.5), nll(1.0), 10 * nll(-3.0), nll(-1.0), 0.1 * nll(4.0)]
    loss = WeightedBCE(context(), cap=10, reduction="sum")
    assert loss(logits, targets).item() == pytest.approx(sum(expected), rel=1e-6)
    assert WeightedBCE(context(), cap=10)(logits, targets).item() == pytest.approx(
        sum(expected) / 5, rel=1e-6
    )
