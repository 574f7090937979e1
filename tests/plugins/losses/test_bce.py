"""BCE, and the reductions by the example of it."""

import pytest
import torch

from mlbench.contracts.made_up import made_up_context
from mlbench_plugins.layers.loss_terms import REDUCTIONS
from mlbench_plugins.losses.bce import BCE

LABELS = made_up_context(3)
LOGITS = torch.tensor([[0.5, -2.0, 3.0], [1.0, 0.0, -1.0]])
TARGETS = torch.tensor([[1, 0, -1], [0, -1, -1]], dtype=torch.int8)


def terms():
    """The cross entropy of the three known labels: two of the first image, one of the second."""
    return [torch.nn.functional.softplus(torch.tensor(x)).item() for x in (-0.5, -2.0, 1.0)]


def test_reductions_over_known_labels():
    a, b, c = terms()
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
