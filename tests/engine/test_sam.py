import pytest
import torch
from torch import nn

from mlbench.engine.optim import sam_perturbation
from tests.engine import tiny
from tests.engine.tiny import fit, flat


def test_batch_norms_see_both_passes_or_the_first_alone():
    def after(**changes):
        model = tiny.model()
        fit(tiny.training(tiny.settings(epochs=1, batch_size=24, **changes)), model)
        return {n: b for n, b in model.named_buffers() if n not in ("mean", "std")}

    once, both, first = after(), after(sam_rho=0.3), after(sam_rho=0.3, sam_bn="first")
    assert all(torch.equal(first[name], once[name]) for name in once)
    for name in once:
        assert not torch.equal(both[name], once[name]), name
    assert both["backbone.one.1.num_batches_tracked"] == 2
    training = tiny.training(tiny.settings(sam_rho=0.3, sam_bn="first"))
    model = fit(training).learners[0].model
    assert model.backbone.one[1].num_batches_tracked == training.epoch_steps * 2


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_the_gradient_that_is_applied_is_the_one_that_is_clipped(rho):
    chosen = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}

    def moved(**changes):
        given = tiny.settings(epochs=1, batch_size=24, optimizer=chosen, **changes)
        state = fit(tiny.training(given))
        return flat(tiny.model()) - flat(state.learners[0].model), state.log[0].grad_norm

    free, norm = moved(sam_rho=rho)
    clipped, before_clipping = moved(sam_rho=rho, grad_clip=0.01)
    assert free.norm().item() == pytest.approx(norm, rel=1e-4)
    assert before_clipping == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(clipped, free * 0.01 / norm, rtol=1e-3, atol=1e-6)


def test_the_climb_is_as_long_as_rho_and_is_undone_to_the_bit():
    model = tiny.model()
    before = flat(model)
    for p in model.parameters():
        p.grad = torch.randn_like(p) * 100
    model.head.classifier.bias.grad = None
    with sam_perturbation(list(model.parameters()), 0.25):
        climb = flat(model) - before
        assert not model.head.classifier.bias.grad
        assert torch.equal(climb[-3:], torch.zeros(3)), "no gradient, no climb"
    assert climb.norm().item() == pytest.approx(0.25, rel=1e-4)
    assert torch.equal(flat(model), before)
    with pytest.raises(ZeroDivisionError), sam_perturbation(list(model.parameters()), 0.25):
        raise ZeroDivisionError
    assert torch.equal(flat(model), before)


def test_a_gradient_of_zero_climbs_nowhere():
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.zeros(3)
    with sam_perturbation([weight], 0.1):
        assert torch.equal(weight, torch.ones(3))


class Counted(tiny.Bce):
    """Tells how often it was asked, and may give a gradient that half precision cannot hold."""

    def __init__(self, too_steep=()):
        super().__init__()
        self.calls, self.too_steep = 0, too_steep

    def forward(self, logits, targets):
        self.calls += 1
        value = super().forward(logits, targets)
        return value * 1e35 if self.calls in self.too_steep else value


@pytest.mark.parametrize(("pass_", "calls"), [(1, 1), (2, 2)])
def test_an_overflow_in_either_pass_leaves_the_step_out(pass_, calls):
    loss = Counted(too_steep=(pass_,))
    given = tiny.settings(epochs=1, batch_size=24, sam_rho=0.05)
    state = fit(tiny.training(given, loss=loss, precision="fp16"))
    assert loss.calls == calls, "after an overflow there is no second pass"
    assert torch.equal(flat(state.learners[0].model), flat(tiny.model()))
    assert state.learners[0].scaler.get_scale() == 65536 / 2
