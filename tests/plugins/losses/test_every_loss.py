"""What all losses of this project share: the reductions and the precision."""

import pytest
import torch

from mlbench import registry
from mlbench.types import PluginError
from mlbench_plugins.layers.reduction import REDUCTIONS

LOSSES = [p for p in registry.plugins() if (p.kind, p.distribution) == ("loss", "mlbench-mlic")]
pytestmark = pytest.mark.parametrize("loss", [pytest.param(p.load(), id=p.name) for p in LOSSES])

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 5, generator=GENERATOR)
TARGETS = torch.randint(-1, 2, (6, 5), generator=GENERATOR, dtype=torch.int8)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_the_sum_depends_on_how_a_batch_is_split(labels, loss, reduction):
    made = loss(labels, reduction=reduction)
    parts = [made(x, y) for x, y in zip(LOGITS.chunk(3), TARGETS.chunk(3), strict=True)]
    joined = sum(parts) if reduction == "sum" else sum(parts) / 3
    torch.testing.assert_close(made(LOGITS, TARGETS), joined)


def test_reductions_of_one_image_differ_by_the_number_of_its_known_labels(labels, loss):
    targets = torch.tensor([[1, 0, -1, -1, 0]], dtype=torch.int8)
    mean, image_sum, total = (loss(labels, reduction=r)(LOGITS[:1], targets) for r in REDUCTIONS)
    torch.testing.assert_close(torch.stack((3 * mean, image_sum)), total.expand(2))


def test_a_loss_that_adds_up_says_so(labels, loss):
    assert loss(labels, reduction="sum").reduction == "sum"


def test_an_unknown_reduction_is_refused(labels, loss):
    with pytest.raises(PluginError, match="no reduction 'avg'; known: mean, image_sum, sum"):
        loss(labels, reduction="avg")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_single(labels, loss, dtype):
    logits = (10 * LOGITS).to(dtype)
    value = loss(labels)(logits, TARGETS)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(labels)(logits.float(), TARGETS))


def test_double_precision_stays(labels, loss):
    logits = LOGITS.double().requires_grad_()
    value = loss(labels)(logits, TARGETS)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.float(), loss(labels)(LOGITS, TARGETS))


def test_targets_may_be_of_any_type(labels, loss):
    assert torch.equal(
        loss(labels)(LOGITS, TARGETS), loss(labels)(LOGITS, TARGETS.to(torch.float32))
    )
