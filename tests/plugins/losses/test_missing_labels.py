"""Losses that learn from unobserved labels: which labels they change, and which they never do."""

import math

import pytest
import torch

from mlbench import registry
from mlbench.contracts.made_up import made_up_context
from mlbench.types import LossContext, PluginError, evaluate_loss

LABELS = made_up_context(9)
LOGITS = 3 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
POSITIVE = torch.zeros(6, 9, dtype=torch.bool)
POSITIVE[range(6), [0, 1, 2, 3, 4, 4]] = True
UNKNOWN = torch.where(POSITIVE, 1, -1)
EPOCHS = (LossContext(1, 4), LossContext(4, 4))


def made(name, **options):
    return registry.find("loss", name).load()(LABELS, **options)


def gradient(loss, targets, context):
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(evaluate_loss(loss, logits, targets, context), logits)[0]


@pytest.mark.parametrize("context", EPOCHS, ids=str)
@pytest.mark.parametrize("name", ["wan", "em", "csl", "large_loss"])
def test_zeros_are_unobserved_only_if_the_option_says_so(name, context):
    options = {"delta": 10} if name == "large_loss" else {}
    assumed = UNKNOWN.clamp(min=0)
    told, zeros = made(name, **options), made(name, unobserved="0", **options)
    expected = gradient(told, UNKNOWN, context)
    assert torch.equal(gradient(zeros, assumed, context), expected)
    plain = name == "large_loss" and context.epoch == 1
    assert torch.equal(gradient(told, assumed, context), expected) == plain
    with pytest.raises(PluginError, match="unknown unobserved 'guess'; known: -1, 0"):
        made(name, unobserved="guess")


@pytest.mark.parametrize("scheme", ["reject", "correct"])
def test_large_losses_change_more_each_epoch_and_never_what_is_observed(scheme):
    targets = UNKNOWN.clone()
    targets[:, 6:] = 0
    loss = made("large_loss", scheme=scheme, delta=10.0)
    first = gradient(loss, targets, LossContext(1, 8))
    changed = [gradient(loss, targets, LossContext(e, 8)) != first for e in range(1, 9)]
    counts = [int(mask.sum()) for mask in changed]
    assert counts == [min(-(-54 * e // 10), 30) for e in range(8)]  # 30 labels are unobserved
    assert all(not (mask & (targets >= 0)).any() for mask in changed)
    assert loss._changed(10_000, LossContext(4, 8)) == 3000


@pytest.mark.parametrize(("delta", "epochs", "most"), [(6.0, 20, "5.26316"), (5.0, 21, "5")])
def test_a_share_that_would_be_all_labels_is_refused(delta, epochs, most):
    loss = made("large_loss", delta=delta)
    with pytest.raises(PluginError, match=rf"give a delta below {most}$"):
        evaluate_loss(loss, LOGITS, UNKNOWN, LossContext(1, epochs))


def test_splc_takes_confident_labels_as_positives_from_its_epoch_on():
    before, after = (gradient(made("splc"), UNKNOWN, LossContext(e, 3)) for e in (1, 2))
    turned = ~POSITIVE & (LOGITS.sigmoid() > 0.6)
    assert turned.any() and (before[turned] > 0).all() and (after[turned] < 0).all()
    assert torch.equal(before[~turned], after[~turned])


def test_csl_leaves_out_the_likeliest_of_the_batch_and_frequent_classes():
    loss = made("csl", likelihood_topk=2)
    left_out = (gradient(loss, UNKNOWN, EPOCHS[0]) == 0) & ~POSITIVE
    likeliest = LOGITS.masked_fill(POSITIVE, -torch.inf).flatten().topk(12).indices
    assert left_out.flatten().nonzero().flatten().tolist() == sorted(likeliest.tolist())
    loss = made("csl", likelihood_topk=0, prior_threshold=0.5, prior=[0.9] + 8 * [0.1])
    assert loss.separable
    left_out = gradient(loss, UNKNOWN, EPOCHS[0]) == 0
    assert torch.equal(left_out, ~POSITIVE & (torch.arange(9) == 0))
    with pytest.raises(PluginError, match=r"prior_threshold=0.5 needs prior, 9 numbers"):
        made("csl", prior_threshold=0.5, prior=[0.1])
    with pytest.raises(PluginError, match=r"csl: prior\[8\]=nan must lie in \[0, 1\]"):
        made("csl", prior_threshold=0.5, prior=8 * [0.1] + [math.nan])


@pytest.mark.parametrize(("mode", "learns"), [("ignore", False), ("negative", True)])
def test_a_mode_of_csl_that_ignores_says_so(mode, learns):
    loss = made("csl", mode=mode)
    assert loss.uses_unknown == learns and loss.separable
    assert (gradient(loss, UNKNOWN, EPOCHS[0])[~POSITIVE] != 0).any() == learns


@pytest.mark.parametrize("mode", ["ignore", "ignore_normalize_classes"])
def test_a_mean_of_csl_is_over_the_labels_that_it_counts(mode):
    targets = torch.tensor([[1, 0, -1, -1, 0]], dtype=torch.int8)
    losses = (made("csl", mode=mode, reduction=r) for r in ("mean", "sum"))
    mean, total = (loss(LOGITS[:1, :5], targets) for loss in losses)
    torch.testing.assert_close(mean * 3, total)
