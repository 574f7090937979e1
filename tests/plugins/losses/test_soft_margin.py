"""The soft margin loss is torch's, where torch has one, and bce everywhere."""

import pytest
import torch

from mlbench_plugins.layers.reduction import REDUCTIONS
from mlbench_plugins.losses.bce import BCE
from mlbench_plugins.losses.soft_margin import SoftMargin

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 5, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.randint(-1, 2, (6, 5), generator=GENERATOR, dtype=torch.int8)


def test_all_known_is_torchs(labels):
    targets = TARGETS.clamp(min=0)
    expected = torch.nn.MultiLabelSoftMarginLoss()(LOGITS, targets)
    torch.testing.assert_close(SoftMargin(labels)(LOGITS, targets), expected)


def test_an_image_is_torchs_over_its_known_labels(labels):
    expected = [
        torch.nn.MultiLabelSoftMarginLoss()(x[y >= 0][None], y[y >= 0][None])
        for x, y in zip(LOGITS, TARGETS, strict=True)
    ]
    torch.testing.assert_close(SoftMargin(labels)(LOGITS, TARGETS), sum(expected) / len(expected))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_it_is_bce(labels, reduction):
    value = SoftMargin(labels, reduction=reduction)(LOGITS, TARGETS)
    assert torch.equal(value, BCE(labels, reduction=reduction)(LOGITS, TARGETS))
