"""BCE, and the reductions that every loss shares."""

import pytest
import torch

from mlbench.types import PluginError
from mlbench_plugins.layers.reduction import REDUCTIONS
from mlbench_plugins.losses.asl import ASL
from mlbench_plugins.losses.bce import BCE

LOGITS = torch.tensor([[0.5, -2.0, 3.0], [1.0, 0.0, -1.0]])
TARGETS = torch.tensor([[1, 0, -1], [0, -1, -1]], dtype=torch.int8)


def terms():
    """The cross entropy of the three known labels: two of the first image, one of the second."""
    return [torch.nn.functional.softplus(torch.tensor(x)).item() for x in (-0.5, -2.0, 1.0)]


def test_reductions_over_known_labels(labels):
    a, b, c = terms()
    values = {r: BCE(labels, reduction=r)(LOGITS, TARGETS).item() for r in REDUCTIONS}
    assert values == pytest.approx(
        {"mean": ((a + b) / 2 + c) / 2, "image_sum": (a + b + c) / 2, "sum": a + b + c}
    )


def test_all_known_is_torchs_mean(labels):
    targets = (LOGITS > 0.7).to(torch.int8)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, targets.float())
    margin = torch.nn.functional.multilabel_soft_margin_loss(LOGITS, targets)
    value = BCE(labels)(LOGITS, targets)
    torch.testing.assert_close(value, bce)
    torch.testing.assert_close(value, margin)


@pytest.mark.parametrize("loss", [BCE, ASL])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_the_sum_depends_on_how_a_batch_is_split(labels, loss, reduction):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator)
    targets = torch.randint(-1, 2, (6, 5), generator=generator, dtype=torch.int8)
    made = loss(labels, reduction=reduction)
    parts = [made(x, y) for x, y in zip(logits.chunk(3), targets.chunk(3), strict=True)]
    joined = sum(parts) if reduction == "sum" else sum(parts) / 3
    torch.testing.assert_close(made(logits, targets), joined)


@pytest.mark.parametrize("loss", [BCE, ASL])
def test_an_unknown_reduction_is_refused(labels, loss):
    with pytest.raises(PluginError, match="no reduction 'avg'; known: mean, image_sum, sum"):
        loss(labels, reduction="avg")


@pytest.mark.parametrize("loss", [BCE, ASL])
def test_half_precision_logits_are_computed_in_single(labels, loss):
    logits = (10 * LOGITS).half()
    assert loss(labels)(logits, TARGETS).dtype == torch.float32
    torch.testing.assert_close(loss(labels)(logits, TARGETS), loss(labels)(logits.float(), TARGETS))
