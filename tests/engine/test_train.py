import copy
import math
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlbench.data.loader import micro_batches, training_order
from mlbench.data.mixing import draw_mixes
from mlbench.engine.batch_parts import mutual_divergence
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator
from mlbench.engine.model import deterministic
from mlbench.engine.train import finish, train
from mlbench.types import DivergedError, SuiteError
from tests.engine import tiny
from tests.engine.tiny import fit


def written_out(models, training):
    """SAM and mutual learning as a plain loop, by SGD with momentum in one process.

    Trains models in place; returns the losses of the first.
    """
    settings = training.settings
    rho, adaptive, weight = settings.sam_rho, settings.sam_adaptive, settings.mutual_weight
    velocity = {p: torch.zeros_like(p) for model in models for p in model.parameters()}
    losses = []
    for epoch in range(settings.epochs):
        for positions in training_order(len(training.index), settings.batch_size, 0, epoch):
            images = training.source(positions, epoch)
            targets = torch.from_numpy(training.index.targets[positions])
            outputs = [model.train()(images) for model in models]
            said = [output.logits.detach().sigmoid() for output in outputs]
            for i, model in enumerate(models):
                peers = said[:i] + said[i + 1 :]

                def objective(output, peers=peers, targets=targets):
                    value = training.loss(output.logits, targets) + output.aux["small"]
                    q = output.logits.sigmoid()
                    for p in peers:
                        kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
                        value = value + weight * kl.mean() / len(peers)
                    return value

                parameters = list(model.parameters())
                loss = objective(outputs[i])
                gradients = torch.autograd.grad(loss, parameters)
                if rho:
                    before = [p.detach().clone() for p in parameters]
                    sizes = [p.abs() if adaptive else torch.ones_like(p) for p in before]
                    pairs = list(zip(sizes, gradients, strict=True))
                    norm = torch.sqrt(sum((size * g).square().sum() for size, g in pairs))
                    for p, (size, g) in zip(parameters, pairs, strict=True):
                        p.data = p.data + rho * size**2 * g / norm
                    gradients = torch.autograd.grad(objective(model(images)), parameters)
                    for p, w in zip(parameters, before, strict=True):
                        p.data = w
                for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                    velocity[p] = 0.9 * velocity[p] + g
                    scale = settings.backbone_lr_scale if name.startswith("backbone") else 1.0
                    p.data = p.data - settings.optimizer.lr * scale * velocity[p]
                losses += [loss.item()] if i == 0 else []
    return losses


@pytest.mark.parametrize(
    ("changes", "models", "rtol"),
    [
        ({}, 1, 1e-9),
        ({"sam_rho": 0.3}, 1, 1e-9),
        ({"sam_rho": 0.3, "sam_adaptive": True}, 1, 1e-9),
        ({"mutual_weight": 0.7}, 3, 1e-6),
        ({"mutual_weight": 0.7, "sam_rho": 0.3}, 2, 1e-6),
    ],
)
def test_training_equals_a_loop_written_out(changes, models, rtol):
    training = tiny.training(tiny.settings(backbone_lr_scale=0.1, **changes))
    models = [tiny.model(seed).double() for seed in range(models)]
    others = copy.deepcopy(models)
    state = fit(training, *models)
    losses = written_out(others, training)
    assert state.losses == pytest.approx(losses, rel=1e-6), "kept in float32"
    for ours, theirs in zip(models, others, strict=True):
        for name, value in theirs.state_dict().items():
            found = ours.state_dict()[name]
            torch.testing.assert_close(found, value, rtol=rtol, atol=rtol / 100, msg=name)
    assert state.step == 6 and [entry.epoch for entry in state.log] == [1, 2]
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [entry.loss for entry in state.log] == pytest.approx(means, rel=1e-6)
    assert state.log[0].aux["small"] > 0 and state.log[0].grad_norm > 0


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"frozen_stages": 1}, ("backbone.one",)),
        ({"frozen_stages": -1}, ("backbone",)),
        ({"freeze_bn": True}, ("running_", "num_batches_tracked")),
        ({"frozen_stages": 1, "sam_rho": 0.3}, ("backbone.one",)),
        ({"freeze_bn": True, "sam_rho": 0.3}, ("running_", "num_batches_tracked")),
    ],
)
def test_frozen_weights_and_statistics_do_not_change(changes, kept):
    model = tiny.model()
    before = copy.deepcopy(model.state_dict())
    fit(tiny.training(tiny.settings(**changes)), model)
    for name, value in model.state_dict().items():
        frozen = name in ("mean", "std") or any(part in name for part in kept)
        if frozen or not name.endswith(".0.bias"):  # a batch norm takes it away again
            assert torch.equal(value, before[name]) == frozen, name


def test_the_average_is_what_is_evaluated_and_equals_its_definition():
    model = tiny.model()
    model.head.register_buffer("places", torch.arange(1000))
    model.head.register_buffer("allowed", torch.tensor([True, False]))
    training = tiny.training(tiny.settings(ema_decay=0.9))
    state = training.start(model)
    weight, mean = model.head.classifier.weight, model.backbone.one[1].running_mean
    steps = []
    state.learners[0].optimizer.register_step_post_hook(
        lambda *_: steps.append((weight.detach().clone(), mean.clone()))
    )
    finish(train(state, training))
    # The average starts from the weights after the first update.
    expected = list(steps[0])
    for step in steps[1:]:
        expected = [0.9 * e + 0.1 * value for e, value in zip(expected, step, strict=True)]
    averaged = state.evaluated()
    torch.testing.assert_close(averaged.head.classifier.weight, expected[0])
    torch.testing.assert_close(averaged.backbone.one[1].running_mean, expected[1])
    assert not torch.equal(averaged.head.classifier.weight, weight)
    assert averaged.backbone.one[1].num_batches_tracked == 6
    assert torch.equal(averaged.head.places, torch.arange(1000))
    assert averaged.head.allowed.tolist() == [True, False]


def test_a_warm_average_forgets_the_first_weights_and_knows_how_much_is_left():
    """Scaled weights show the share: all others are zero."""
    shares = {}
    for warm in (False, True):
        given = tiny.settings(ema_decay=0.97, ema_warmup=warm, epochs=4, batch_size=12)
        training, model = tiny.training(given), tiny.model()
        state = training.start(model)
        first, average = model.head.classifier.weight, state.learners[0].average
        for step in range(8):
            first.data.fill_(1.0 if step == 0 else 0.0)
            average.update(model)
        shares[warm] = average.module.head.classifier.weight[0, 0].item()
        assert given.first_weights_share(24, 4) == pytest.approx(shares[warm], rel=1e-5)
    assert shares[False] == pytest.approx(0.97**7, rel=1e-5)
    warm = math.prod((1 + t) / (10 + t) for t in range(1, 8))
    assert shares[True] == pytest.approx(warm, rel=1e-5)


@given(
    decay=st.floats(0.001, 0.9999) | st.sampled_from([0.1, 0.5, 0.9, 0.9997]),
    steps=st.integers(1, 3000),
    epochs=st.integers(0, 5),
    warm=st.booleans(),
)
def test_the_share_of_the_first_weights_is_the_product_of_the_decays(decay, steps, epochs, warm):
    settings = tiny.settings(ema_decay=decay, ema_warmup=warm, batch_size=4)
    expected = math.prod(settings.decay_after(t) for t in range(1, steps * epochs))
    found = settings.first_weights_share(4 * steps + 3, epochs)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-290)


@pytest.mark.parametrize(
    "changes", [{"grad_clip": 0.1}, {"sam_rho": 0.1}, {"mutual_weight": 1.0}], ids=str
)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_agrees_with_full_and_scales_in_fp16(changes, precision):
    given, seeds = tiny.settings(**changes), range(2 if "mutual_weight" in changes else 1)
    state, reference = (
        fit(tiny.training(given, precision=p), *map(tiny.model, seeds)) for p in (precision, "fp32")
    )
    assert state.losses == pytest.approx(reference.losses, rel=0.05)
    assert state.log[1].grad_norm == pytest.approx(reference.log[1].grad_norm, rel=0.1)
    assert state.learners[0].scaler.get_scale() == (65536 if precision == "fp16" else 1)


def test_an_operator_that_cannot_repeat_its_results_is_named_with_the_remedy():
    class Head(tiny.Head):
        def forward(self, features):
            features[-1].clone().put_(torch.tensor([0]), torch.ones(1))  # torch refuses it
            return super().forward(features)

    said = r"needs torch's put_, .*; leave out --deterministic"
    with pytest.raises(SuiteError, match=said), deterministic(True):
        fit(tiny.training(), tiny.model(head=Head))
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_loss_that_is_not_finite_stops_at_its_step():
    class Bomb(nn.Module):
        needs, told = {"epoch"}, []

        def forward(self, logits, targets, context):
            self.told.append(context)
            return logits.sum() * (float("nan") if len(self.told) == 5 else 0.1)

    training = tiny.training(tiny.settings(epochs=4), loss=Bomb())
    state = training.start(tiny.model())
    with pytest.raises(DivergedError, match="step 5") as caught:
        finish(train(state, training))
    assert caught.value.step == 5
    assert len(state.log) == 1, "the epochs before it are kept"
    assert Bomb.told == [(1, 4)] * 3 + [(2, 4)] * 3, "epochs count from 1"


@pytest.mark.parametrize(("batch", "steps", "images"), [(8, 3, 8), (32, 1, 24)])
def test_an_epoch_tells_its_own_time_and_speed(batch, steps, images, monkeypatch):
    """A step takes a second; an earlier process took 5, and other runs take 1000 between steps."""
    now, told = [0.0], []
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("mlbench.engine.train.time", clock)
    monkeypatch.setattr(tiny.Quiet, "step", lambda _, *step: told.append(step))

    def seconds(*_):
        now[0] += 1

    training, model = tiny.training(tiny.settings(batch_size=batch)), tiny.model()
    model.register_forward_pre_hook(seconds)
    state = training.start(model)
    state.seconds, state.largest_norm, state.extra = 5.0, 1e9, {"small": [torch.tensor(1e9)]}
    run = train(state, training)
    wanted = next(run)
    with suppress(StopIteration):
        while True:
            now[0] += 1000
            wanted = run.send(None if wanted is None else wanted.batches())
    assert [entry.seconds for entry in state.log] == [5 + steps, steps]
    speeds = [entry.images_per_second for entry in state.log]
    assert speeds == [steps * images / (5 + steps), images]
    before, *_, last = state.losses[steps - 1 :]
    first = [(0, steps, steps, before, speeds[0])]
    second = [(1, i, steps, before if i < steps else last, images) for i in range(1, steps + 1)]
    assert told == first + second
    first, second = ((entry.grad_norm, entry.aux["small"]) for entry in state.log)
    assert min(first) > 1e8 > max(second), "each epoch has its own"


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_shows_no_image_twice(images, batch, epoch):
    order = training_order(images, batch, 0, epoch)
    seen = [i for positions in order for i in positions.tolist()]
    assert len(set(seen)) == len(seen) == min(images, max(images // batch, 1) * batch)
    assert all(len(positions) == min(batch, images) for positions in order)


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 5))
def test_parts_cover_everything_once(rows, number, processes):
    parts = zip(*(micro_batches(rows, number, i, processes) for i in range(processes)), strict=True)
    assert np.concatenate([part for one in parts for part in one]).tolist() == list(range(rows))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_prediction_covers_every_image_once_in_order(batch_size):
    training = tiny.training()
    model = tiny.model().eval()
    given, told = (training.index, training.source, training.world, training.device), []
    count = lambda *of: told.append(of)  # noqa: E731
    found = Evaluator(*given, count=count, batch_size=batch_size).predict(model)
    assert told == [(done, 24) for done in range(0, 24, batch_size)]
    with torch.no_grad():
        expected = model(training.source.images).logits
    torch.testing.assert_close(torch.from_numpy(found.logits), expected, atol=1e-5, rtol=1e-4)
    assert found.keys == tuple(training.index.keys)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_finite_for_logits_that_are_sure(dtype):
    own = torch.tensor([40.0, -40.0, 40.0, 0.0], dtype=dtype, requires_grad=True)
    peer = torch.tensor([-40.0, 40.0, 40.0, -40.0], dtype=dtype, requires_grad=True)
    value = mutual_divergence(own, [peer])
    value.backward()
    assert value.item() == pytest.approx((40 + 40 + 0 + math.log(2)) / 4, rel=1e-3)
    assert own.grad.isfinite().all() and peer.grad is None


def test_the_first_is_scored_and_averaged_and_both_are_trained_and_kept():
    models = tiny.model(0), tiny.model(1)
    before = copy.deepcopy(models)
    assert fit(tiny.training(tiny.settings(mutual_weight=1.0)), *models).evaluated() is models[0]
    for old, new in zip(before, models, strict=True):
        assert not torch.equal(old.head.classifier.weight, new.head.classifier.weight)
    averaged = fit(tiny.training(tiny.settings(mutual_weight=1.0, ema_decay=0.5)), *before)
    assert averaged.evaluated() is averaged.learners[0].average.module
    assert averaged.learners[1].average is None
    assert averaged.learners[1].model is before[1]


@pytest.mark.parametrize(
    ("name", "options"),
    [("mixup", {"labels": "linear"}), ("mixup", {"labels": "union"}), ("splicemix", {"drop": 1})],
)
def test_a_mixed_batch_has_the_loss_of_its_labels(name, options):
    mixing = {"name": name, "options": options}
    changed = tiny.settings(optimizer={"name": "sgd", "lr": 0.0}, mixing=mixing)
    plan, twin = tiny.training(changed, seed=3), tiny.model().train()
    losses = fit(plan, tiny.model()).losses
    orders = [order for epoch in (0, 1) for order in training_order(24, 8, 3, epoch)]
    mixes = [mix for epoch in (0, 1) for mix in draw_mixes(changed.mixing, [8, 8, 8], 3, epoch)]
    for order, mix, loss in zip(orders, mixes, losses, strict=True):
        targets = torch.from_numpy(plan.index.targets[order])
        mixed = mix.apply(plan.source(order, 0), targets, np.arange(mix.rows), twin.mean)
        output = twin(mixed.inputs)
        pairs = [(1.0, mixed.targets)]
        if mixed.others is not None:
            pairs = [(mixed.weight, mixed.targets), (1 - mixed.weight, mixed.others)]
        expected = sum(weight * plan.loss(output.logits, y) for weight, y in pairs)
        assert loss == pytest.approx((expected + output.aux["small"]).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("device", "size", "wanted"), [("cuda", 1, 0), ("cuda", 2, 1), ("cpu", 1, 1), ("cpu", 2, 1)]
)
def test_batch_norms_are_synchronized_on_the_cpu_and_on_several_gpus(
    device, size, wanted, monkeypatch
):
    seen, where = [], {"device": torch.device(device), "world": World(0, size, 0)}
    monkeypatch.setattr("mlbench.engine.train.synchronize", lambda *_: seen.append(1))
    tiny.training(tiny.settings(sync_bn=False), **where).start(tiny.model())
    assert not seen
    tiny.training(**where).start(tiny.model())
    assert len(seen) == wanted
