import copy
import math

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence

from mlbench.engine.train import mutual_divergence
from tests.engine import tiny, written_out
from tests.engine.tiny import fit


def test_the_divergence_is_that_of_bernoulli_variables():
    own, *peers = torch.randn(3, 5, 7, dtype=torch.float64) * 3
    expected = torch.stack(
        [kl_divergence(Bernoulli(logits=peer), Bernoulli(logits=own)).mean() for peer in peers]
    ).mean()
    found = mutual_divergence(own, peers)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.dtype == torch.float32
    assert mutual_divergence(own, peers[:1]) != mutual_divergence(peers[0], [own]), (
        "it has a direction"
    )


def test_twins_have_nothing_to_teach_each_other():
    logits = (torch.randn(4, 3) * 10).requires_grad_()
    value = mutual_divergence(logits, [logits.detach().clone()])
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_no_gradient_reaches_the_peers():
    own, peer = torch.randn(2, 4, 3).unbind()
    own.requires_grad_(), peer.requires_grad_()
    mutual_divergence(own, [peer]).backward()
    assert own.grad.abs().sum() > 0 and peer.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_finite_for_logits_that_are_sure(dtype):
    own = torch.tensor([40.0, -40.0, 40.0, 0.0], dtype=dtype, requires_grad=True)
    peer = torch.tensor([-40.0, 40.0, 40.0, -40.0], dtype=dtype)
    value = mutual_divergence(own, [peer])
    value.backward()
    assert value.item() == pytest.approx((40 + 40 + 0 + math.log(2)) / 4, rel=1e-3)
    assert own.grad.isfinite().all()


def test_training_equals_two_models_written_out():
    training = tiny.training(tiny.settings(mutual_weight=0.7, backbone_lr_scale=0.1))
    models = [tiny.model(seed).double() for seed in (0, 1)]
    others = copy.deepcopy(models)
    state = fit(training, *models)
    expected = written_out.fit(others, training, weight=0.7)
    assert state.losses == pytest.approx(expected, rel=1e-6), "kept in float32"
    for ours, theirs in zip(models, others, strict=True):
        for (name, a), b in zip(
            ours.state_dict().items(), theirs.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8, msg=name)


def test_twins_learn_as_one_alone():
    alone = fit(tiny.training(), tiny.model())
    twins = fit(tiny.training(tiny.settings(mutual_weight=1.0)), tiny.model(), tiny.model())
    assert twins.losses == alone.losses
    assert all(entry.aux["mutual"] == 0 for entry in twins.log)
    for learner in twins.learners:
        for name, value in learner.model.state_dict().items():
            assert torch.equal(value, alone.learners[0].model.state_dict()[name]), name


def test_the_first_is_scored_and_averaged_and_both_are_trained_and_kept():
    models = tiny.model(0), tiny.model(1)
    before = copy.deepcopy(models)
    state = fit(tiny.training(tiny.settings(mutual_weight=1.0)), *models)
    assert state.evaluated() is models[0]
    for old, new in zip(before, models, strict=True):
        assert not torch.equal(old.head.classifier.weight, new.head.classifier.weight)
    averaged = fit(tiny.training(tiny.settings(mutual_weight=1.0, ema_decay=0.5)), *before)
    assert averaged.evaluated() is averaged.learners[0].average.module
    assert averaged.learners[1].average is None
    assert averaged.learners[1].model is before[1]
