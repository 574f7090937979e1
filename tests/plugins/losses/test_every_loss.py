"""What all losses of this project share: the reductions and the precision."""

import math

import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import made_up_context
from mlbench.types import PluginError
from mlbench_plugins.layers.loss_terms import REDUCTIONS

LOSSES = [p for p in registry.plugins() if (p.kind, p.distribution) == ("loss", "mlbench-mlic")]
each_loss = pytest.mark.parametrize("loss", [pytest.param(p.load(), id=p.name) for p in LOSSES])

LABELS = made_up_context(5)
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(6, 5, generator=GENERATOR)
TARGETS = torch.randint(-1, 2, (6, 5), generator=GENERATOR, dtype=torch.int8)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@each_loss
def test_only_the_sum_depends_on_how_a_batch_is_split(loss, reduction):
    made = loss(LABELS, reduction=reduction)
    parts = [made(x, y) for x, y in zip(LOGITS.chunk(3), TARGETS.chunk(3), strict=True)]
    joined = sum(parts) if reduction == "sum" else sum(parts) / 3
    torch.testing.assert_close(made(LOGITS, TARGETS), joined)


@each_loss
def test_reductions_of_one_image_differ_by_the_number_of_its_known_labels(loss):
    targets = torch.tensor([[1, 0, -1, -1, 0]], dtype=torch.int8)
    mean, image_sum, total = (loss(LABELS, reduction=r)(LOGITS[:1], targets) for r in REDUCTIONS)
    torch.testing.assert_close(torch.stack((3 * mean, image_sum)), total.expand(2))


@each_loss
def test_an_unknown_reduction_is_refused(loss):
    with pytest.raises(PluginError, match="unknown reduction 'avg'; known: mean, image_sum, sum"):
        loss(LABELS, reduction="avg")


@each_loss
def test_double_precision_stays(loss):
    logits = LOGITS.double().requires_grad_()
    value = loss(LABELS)(logits, TARGETS)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.float(), loss(LABELS)(LOGITS, TARGETS))


@each_loss
def test_targets_may_be_of_any_type(loss):
    assert torch.equal(
        loss(LABELS)(LOGITS, TARGETS), loss(LABELS)(LOGITS, TARGETS.to(torch.float32))
    )


REFUSED = [
    ("focal", {"gamma": -1}),
    ("asl", {"clip": 1.0}),
    ("weighted_bce", {"cap": 0.5}),
    ("aam", {"s": 0}),
    ("aam", {"gamma_neg": math.nan}),
    ("aam", {"label_smooth": 0.6}),
    ("aam", {"t": 0.5}),
]


@pytest.mark.parametrize(("name", "options"), REFUSED)
def test_options_that_cannot_be_are_refused(name, options):
    ((option, value),) = options.items()
    with pytest.raises(PluginError, match=f"{name}: {option}={value} must lie in"):
        registry.find("loss", name).load()(LABELS, **options)
