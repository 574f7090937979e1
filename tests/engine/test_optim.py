import pytest
import torch
from torch import nn

from mlbench.engine import optim
from mlbench.engine.model import deterministic
from mlbench.engine.train import finish, train
from mlbench.types import HeadOutput, Schedule
from tests.engine import tiny


class Assorted(nn.Module):
    """A head with every kind of parameter."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 3)
        self.attention = nn.MultiheadAttention(6, 2)
        self.recurrent = nn.LSTM(6, 3)
        self.norm = nn.LayerNorm((2, 3))
        self.rms = nn.RMSNorm((2, 3))
        self.batch = nn.BatchNorm1d(6)
        self.prelu = nn.PReLU()
        self.queries = nn.Parameter(torch.randn(3, 6))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.group_bias = nn.Parameter(torch.zeros(3, 1))
        self.tied, self.shared = self.linear, nn.Linear(6, 3, bias=False)
        self.shared.weight = self.linear.weight

    def forward(self, features):
        return HeadOutput(self.linear(features[-1].mean((2, 3))))


def named(made, **changes):
    """Name of each trained parameter -> its group's learning rate and weight decay."""
    chosen = {"name": "sgd", "lr": 0.1, "weight_decay": 0.01, **changes}
    optimizer = optim.make_optimizer(made, tiny.settings(optimizer=chosen, backbone_lr_scale=0.5))
    names = {id(p): name for name, p in made.named_parameters()}
    found = [
        (names[id(p)], (group["lr"], group["weight_decay"]))
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    assert len(found) == len(dict(found)), "no parameter stands in two groups"
    return dict(found)


def trained(made):
    return {name for name, p in made.named_parameters() if p.requires_grad}


NORMS_AND_SCALES = {
    *(f"head.{name}" for name in ("norm.weight", "rms.weight", "batch.weight", "prelu.weight")),
    *("head.scale", "backbone.one.1.weight", "backbone.two.1.weight"),
}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("bias_scale", [1.0, 2.0])
@pytest.mark.parametrize("decay_all", [True, False])
def test_groups_have_the_learning_rates_and_decays_of_the_settings(name, bias_scale, decay_all):
    made = tiny.model(head=Assorted)
    found = named(made, name=name, bias_lr_scale=bias_scale, decay_norms_and_biases=decay_all)
    optimizer = optim.make_optimizer(made, tiny.settings(optimizer={"name": name, "momentum": 0.7}))
    assert momenta(optimizer.param_groups[0])[1:] == ([0.7] if name == "sgd" else [0.7, 0.999])
    assert set(found) == trained(made) and type(optimizer).__name__.lower() == name
    assert len(optimizer.param_groups) == 2, "by default, of head and backbone"
    for parameter, (lr, decay) in found.items():
        rate = 0.1 if parameter.startswith("head") else 0.05
        bias = "bias" in parameter
        assert lr == rate * (bias_scale if bias else 1), parameter
        decayed = decay_all or not (bias or parameter in NORMS_AND_SCALES)
        assert decay == (0.01 if decayed else 0.0), parameter


def test_what_is_frozen_is_in_no_group():
    made = tiny.model(head=Assorted)
    optim.make_learner(made, tiny.settings(frozen_stages=1), scaled=False, averaged=False)
    found = named(made, decay_norms_and_biases=False, bias_lr_scale=2.0)
    assert set(found) == trained(made)
    assert not any(n.startswith("backbone.one") for n in found)


def test_frozen_stages_are_in_evaluation_mode_and_freeze_bn_is_of_the_backbones_norms():
    made = tiny.model(head=Assorted)
    for stage in (made.backbone.one, made.backbone.two):
        stage.append(nn.Dropout())

    def training(**changes):
        optim.set_training_mode(made, tiny.settings(**changes))
        kinds = (nn.BatchNorm2d, nn.BatchNorm1d, nn.Dropout)
        return {n for n, m in made.named_modules() if isinstance(m, kinds) and m.training}

    both = {"backbone.one.1", "backbone.one.3", "backbone.two.1", "backbone.two.3", "head.batch"}
    assert training() == both
    assert training(frozen_stages=1) == {"backbone.two.1", "backbone.two.3", "head.batch"}
    assert training(freeze_bn=True) == {"backbone.one.3", "backbone.two.3", "head.batch"}
    assert training(frozen_stages=-1) == training(frozen_stages=2) == {"head.batch"}


def test_a_fused_first_step_that_overflows_leaves_no_trace(monkeypatch):
    sgd = torch.optim.SGD

    def steps(fused):
        """The weights after an overflow and two steps, as on a GPU if ``fused``."""
        monkeypatch.setattr(torch.optim, "SGD", lambda *a, **k: sgd(*a, **k | {"fused": fused}))
        made = tiny.model()
        learner = optim.make_learner(made, tiny.settings(), scaled=True, averaged=False)
        for factor in (float("inf"), 1.0, 1.0):
            learner.backward(made(torch.ones(2, 3, 16, 16)).logits.sum() * factor)
            learner.update(0)
        return tiny.flat(made)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads divide the weights, whose last digits depend on it
    try:
        with deterministic(True):  # fills uninitialised memory with NaN
            assert torch.equal(steps(True), steps(None))
    finally:
        torch.set_num_threads(threads)


def test_every_group_follows_the_schedule_in_proportion():
    chosen = {"name": "sgd", "lr": 0.1, "bias_lr_scale": 2.0}
    given = tiny.settings(
        optimizer=chosen, backbone_lr_scale=0.1, schedule={"name": "step", "milestones": (1,)}
    )
    optimizer = optim.make_optimizer(tiny.model(), given)
    assert optim.set_learning_rate(optimizer, given, step=3, epoch_steps=3) == pytest.approx(0.01)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.01, 0.02, 0.001, 0.002])


@pytest.mark.parametrize("cycled", [True, False])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_group_of_every_optimiser_follows_torchs_one_cycle(name, cycled):
    shape = {"pct_start": 0.3, "div": 20, "final_div": 100}
    given = tiny.settings(
        optimizer={"name": name, "lr": 0.1, "momentum": 0.8, "bias_lr_scale": 2.0},
        schedule={"name": "one_cycle", "cycle_momentum": cycled, **shape},
        backbone_lr_scale=0.1,
        epochs=4,
    )
    ours = optim.make_optimizer(tiny.model(), given)
    made = optim.make_optimizer(tiny.model(), given)
    rates = [group["lr"] for group in made.param_groups]
    cycle = {"pct_start": 0.3, "div_factor": 20, "final_div_factor": 100, "cycle_momentum": cycled}
    theirs = torch.optim.lr_scheduler.OneCycleLR(made, rates, total_steps=20, **cycle)
    for step in range(20):
        optim.set_learning_rate(ours, given, step, epoch_steps=5)
        assert [momenta(g) for g in ours.param_groups] == [
            pytest.approx(momenta(g), rel=1e-9) for g in made.param_groups
        ]
        made.step()
        if step < 19:
            theirs.step()


def momenta(group):
    """The learning rate, and momentum or both betas."""
    return [group["lr"], *group.get("betas", (group.get("momentum"),))]


def test_cycled_momentum_is_of_one_cycle_alone():
    for name in ("step", "constant"):
        given = tiny.settings(schedule={"name": name, "cycle_momentum": True})
        made = optim.make_optimizer(tiny.model(), given)
        before = [momenta(group)[1:] for group in made.param_groups]
        optim.set_learning_rate(made, given, 0, epoch_steps=5)
        assert [momenta(group)[1:] for group in made.param_groups] == before


@pytest.mark.parametrize(
    "more", [{}, {"sam_rho": 0.05}, {"ema_decay": 0.9}, {"mutual_weight": 1.0}], ids=str
)
def test_momentum_cycles_whatever_is_around_the_optimiser(more):
    given = tiny.settings(schedule={"name": "one_cycle", "cycle_momentum": True}, **more)
    training = tiny.training(given)
    state = training.start(*(tiny.model(seed) for seed in range(2 if given.mutual_weight else 1)))
    seen = [[] for _ in state.learners]
    for steps, learner in zip(seen, state.learners, strict=True):
        learner.optimizer.register_step_pre_hook(
            lambda made, *_, steps=steps: steps.append(made.param_groups[0]["momentum"])
        )
    finish(train(state, training))
    made, expected = optim.make_optimizer(tiny.model(), given), []
    for step in range(6):
        optim.set_learning_rate(made, given, step, training.epoch_steps)
        expected.append(made.param_groups[0]["momentum"])
    assert seen == [pytest.approx(expected)] * len(seen) and min(expected) < 0.9


def test_steps_and_warmup():
    schedule = Schedule(name="step", warmup=1, milestones=(2, 3), gamma=0.1)
    factors = [optim.learning_rate_factor(schedule, step, 4, 16) for step in range(16)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1] + [0.1] * 4 + [0.01] * 4)
    cycle = Schedule(name="one_cycle", pct_start=0.25, div=4, final_div=8)
    factors = [optim.learning_rate_factor(cycle, step, 1, 4) for step in range(4)]
    assert (factors[0], factors[3]) == (1, 1 / 32), "a rise of a single step"
    cycle = cycle.model_copy(update={"warmup": 2})
    warmed = [optim.learning_rate_factor(cycle, step, 1, 4) for step in range(4)]
    assert warmed == pytest.approx([factors[0] / 2, *factors[1:]])
