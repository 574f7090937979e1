"""What a step waits for, what compilation wins, where the time goes, and SAM's two passes."""

import re
import warnings

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mlbench.engine.optim import sam_perturbation
from mlbench.engine.step import CHECK_EVERY, PARTS, Clock
from mlbench.engine.train import finish, train
from mlbench.types import SuiteError
from tests.engine import tiny
from tests.engine.tiny import fit, flat

MIXUP = {"mixing": {"name": "mixup"}}
WAITING = ["item", "tolist", "cpu", "numpy", "nonzero", "unique", "equal"]
WAITING += [f"__{kind}__" for kind in ("bool", "int", "float", "index")]
"""Methods and functions of torch that need a number on the host."""


class _Called(TorchFunctionMode):
    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in WAITING:
            self.see(name)
        return func(*args, **kwargs or {})


class _Dispatched(TorchDispatchMode):
    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.see(str(func))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    "changes",
    [
        {"grad_accumulation": 2, "grad_clip": 1.0, "ema_decay": 0.9, "ema_warmup": True},
        MIXUP,
        {"mixing": {"name": "splicemix"}},
        {"sam_rho": 0.1, "sam_bn": "first"},
        {"mutual_weight": 1.0},
    ],
    ids=str,
)
def test_a_step_waits_for_the_device_only_when_the_loss_is_checked(changes):
    given = tiny.settings(batch_size=2, epochs=1, sync_bn=False, **changes)
    models = [tiny.model(i) for i in range(2 if "mutual_weight" in changes else 1)]
    training = tiny.training(given)
    state, seen = training.start(*models), []

    def see(name):
        seen.append((state.step, name))

    with _Called(see), _Dispatched(see):
        finish(train(state, training))
    assert state.step == 12
    assert {at for at, _ in seen} == {CHECK_EVERY, 12}, seen
    assert [at for at, _ in seen].count(CHECK_EVERY) == 1, "one transfer for all that is checked"


class Dropping(tiny.Head):
    """Draws random numbers when it trains."""

    def forward(self, features):
        return super().forward([nn.functional.dropout(features[-1], 0.5, self.training)])


class Compiled(nn.Module):
    """Stands for what ``torch.compile`` returns."""

    def __init__(self, network, mode):
        super().__init__()
        self.network, self.mode = network, mode

    def forward(self, *inputs):
        return self.network(*inputs)


def dropping(**changes):
    """Train a model that draws; returns the training and its state."""
    training = tiny.training(tiny.settings(ema_decay=0.9, **changes))
    return training, fit(training, tiny.model(head=Dropping))


def test_what_compilation_wins_is_measured_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(torch, "compile", Compiled)
    (_, expected), (training, state) = dropping(), dropping(compile=True)
    assert state.losses == expected.losses
    assert torch.equal(flat(state.evaluated()), flat(expected.evaluated()))
    (note,) = training.keeper.remarks()
    assert re.fullmatch(
        r"compile=True: forward and backward of a step's 8 images take [\d.]+ ms instead of "
        r"[\d.]+, after [\d.]+ s of compilation",
        note,
    )


def test_a_model_that_cannot_be_compiled_is_told_of(monkeypatch):
    def fail(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nmore")

    monkeypatch.setattr(Compiled, "forward", fail)
    monkeypatch.setattr(torch, "compile", Compiled)
    with pytest.raises(SuiteError, match="failed for gap: no compiler; use --set compile=false"):
        dropping(compile=True)


@pytest.mark.slow
def test_a_compiled_model_trains_as_a_plain_one():
    compiled, plain = (fit(tiny.training(tiny.settings(compile=how))) for how in (True, False))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
    assert [*compiled.evaluated().state_dict()] == [*plain.evaluated().state_dict()]


def test_the_parts_of_a_step_add_up_to_it():
    clock = Clock(runs=True)
    fit(tiny.training(tiny.settings(sam_rho=0.1), clock=clock))
    found = clock.profile()
    assert found["steps"] == 6 and tuple(found["parts"]) == PARTS
    whole = sum(part["ms"] for part in found["parts"].values())
    assert whole == pytest.approx(found["ms_per_step"], abs=1e-3)
    assert min(found["parts"][name]["ms"] for name in PARTS) > 0
    assert sum(part["share"] for part in found["parts"].values()) == pytest.approx(1, abs=1e-3)
    assert fit(tiny.training()).losses == fit(tiny.training(clock=Clock(runs=True))).losses


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{}, {"grad_accumulation": 2}, {"sam_rho": 0.1}])
def test_steps_in_cuda_graphs_are_the_plain_ones(changes):
    losses = []
    for how in ("graphs", False):
        training = tiny.training(tiny.settings(compile=how, **changes), device=torch.device("cuda"))
        losses.append(fit(training, tiny.model().cuda()).losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_cuda_waits_only_when_the_loss_is_checked(optimizer, precision):
    device, seen = torch.device("cuda"), []
    chosen = {"name": optimizer, "lr": 0.01}
    given = tiny.settings(batch_size=2, epochs=1, ema_decay=0.9, optimizer=chosen, **MIXUP)
    training = tiny.training(given, device=device, precision=precision)
    state = training.start(tiny.model().to(device))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, *_: seen.append((state.step, str(text)))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            finish(train(state, training))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert {at for at, _ in seen} <= {0, CHECK_EVERY, 12}, seen


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
