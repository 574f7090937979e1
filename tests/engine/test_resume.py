"""A run that was killed and goes on ends as one that nobody disturbed, to the bit."""

import os
import random
import signal
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from mlbench.engine import train as loop
from mlbench.engine.distributed import World
from mlbench.engine.evaluation import Evaluator
from mlbench.engine.resume import FILES, Keeper, _read, discard
from mlbench.engine.signals import stoppable
from mlbench.types import HeadOutput, Interrupted
from tests.engine import tiny

CALLS = 4 * 24
"""Of the loss in a whole run: two models, two passes of SAM, 2 epochs of 12 steps."""


class Killed(BaseException):
    """As SIGKILL: nobody handles it."""


class Loss(tiny.Bce):
    """Draws random numbers of all kinds, has a buffer, and disturbs the run at one of its calls."""

    def __init__(self, at=0, disturb=None):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.at, self.disturb = 0, at, disturb

    def forward(self, logits, targets):
        self.calls += 1
        if self.calls == self.at:
            self.disturb()
        self.seen += 1
        drawn = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return super().forward(logits, targets) * (1 + 0.1 * drawn + 1e-3 * self.seen.item())


class Noisy(tiny.Pixels):
    """Another picture in each epoch, as augmentation makes it."""

    def __call__(self, positions, epoch):
        images = super().__call__(positions, epoch)
        for image, position in zip(images, positions.tolist(), strict=True):
            image += torch.from_numpy(
                np.random.default_rng((0, epoch, position)).integers(0, 9, image.shape, np.uint8)
            )
        return images


def everything(**changes):
    """All settings that leave something behind from one step to the next."""
    fields = {
        "batch_size": 2,
        "sam_rho": 0.1,
        "mutual_weight": 0.5,
        "ema_decay": 0.9,
        "ema_warmup": True,
        "grad_clip": 1.0,
        "mixing": {"name": "mixup", "options": {"labels": "union"}},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "schedule": {"name": "one_cycle", "cycle_momentum": True},
        "selection": "validation",
    }
    return tiny.settings(**fields | changes)


class Head(tiny.Head):
    """With dropout."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Sequential(nn.Dropout(0.3), self.classifier)

    def forward(self, features):
        logits = self.classifier(features[-1].mean((2, 3)))
        return HeadOutput(logits, {"size": features[-1].square().mean()})


def fit(folder, world=None, identity="this", at=0, disturb=None, **changes):
    """A whole run, from its state in a folder if there is one."""
    world = world or World()
    keeper = Keeper(folder, {"code": identity}, world, every=0.0)
    training = tiny.training(
        everything(**changes), loss=Loss(at, disturb), world=world, precision="fp16", keeper=keeper
    )
    source, index = Noisy(training.source.images), tiny.index(9)
    index = replace(index, targets=1 - index.targets)  # so that the first epoch is the best
    evaluator = Evaluator(index, source, world, training.device)
    training = replace(training, source=source, evaluator=evaluator)
    models = [tiny.model(seed, Head) for seed in (0, 1)]
    torch.manual_seed(3 + world.rank)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    state = training.start(*models)
    loop.finish(loop.train(state, training))
    return outcome(state), keeper


def outcome(state):
    """All that a run leaves, but its seconds."""
    first, second = state.learners
    log = [
        (entry.epoch, entry.loss, entry.aux, entry.grad_norm, entry.lr, entry.mAP)
        for entry in state.log
    ]
    weights = {
        "first": first.model.state_dict(),
        "second": second.model.state_dict(),
        "average": first.average.state_dict(),
        "best": state.best.weights,
        "loss": state.loss.state_dict(),
        "scored": {"logits": torch.from_numpy(state.best.predictions.logits)},
    }
    named = {f"{kind} {name}": value for kind, of in weights.items() for name, value in of.items()}
    return state.losses, log, state.best.epoch, first.scaler.get_scale(), named


def assert_same(found, expected):
    assert found[:-1] == expected[:-1]
    for name, value in expected[-1].items():
        assert torch.equal(found[-1][name], value), name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture(autouse=True)
def frequent(monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 3)


def kill():
    raise Killed


def killed(folder, at, **changes):
    with pytest.raises(Killed):
        fit(folder, at=at, disturb=kill, **changes)


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path, undisturbed):
    for at in (18, 33, 40):  # counted from where it goes on; in the first pass, and in the second
        killed(tmp_path, at)
    found, keeper = fit(tmp_path)
    assert_same(found, undisturbed)
    assert keeper.resumed == [3, 9, 18]
    assert keeper.remarks() == ["resumed after step 3, 9, 18"]
    discard(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("_", range(20))
def test_killed_anywhere(_, tmp_path, undisturbed):
    at = int(np.random.default_rng().integers(1, CALLS))
    print("killed at call", at)
    killed(tmp_path, at)
    assert_same(fit(tmp_path)[0], undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves_it(number, tmp_path, undisturbed):
    def disturb():
        os.kill(os.getpid(), number)

    with stoppable(), pytest.raises(Interrupted, match=f"{signal.Signals(number).name}; repeat"):
        fit(tmp_path, at=4 * 7 + 2, disturb=disturb)
    found, keeper = fit(tmp_path)
    assert_same(found, undisturbed)
    assert keeper.resumed == [8]


def test_a_second_interrupt_does_not_wait():
    with stoppable():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_state_falls_back_to_the_one_before(damaged, tmp_path, undisturbed):
    killed(tmp_path, 40)
    for name in FILES[:damaged]:
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content[: len(content) - 5 * damaged])
    found, keeper = fit(tmp_path)
    assert_same(found, undisturbed)
    assert keeper.resumed == ([6] if damaged == 1 else [])
    assert "state.pt was damaged and not used" in keeper.remarks()


def test_a_state_of_other_code_is_not_used(tmp_path, undisturbed, caplog):
    killed(tmp_path, 40, identity="other")
    found, keeper = fit(tmp_path)
    assert_same(found, undisturbed)
    assert keeper.remarks() == ["a saved state was not used, being of other code"]
    assert keeper.remarks()[0] in caplog.text, "before hours of training it again"


def test_a_full_disk_costs_the_state_and_not_the_run(tmp_path, undisturbed):
    (tmp_path / FILES[0]).mkdir()
    (tmp_path / FILES[1]).mkdir()
    (tmp_path / FILES[1] / "in the way").touch()
    found, keeper = fit(tmp_path)
    assert_same(found, undisturbed)
    assert "could not be saved at step 24" in keeper.remarks()[-1]


def test_states_at_ends_of_epochs_keep_their_distance(tmp_path):
    keeper = Keeper(tmp_path)
    assert keeper.requests(epoch_ended=True) == [0, 0]
    keeper._saved -= 31
    assert keeper.requests() == [0, 0] and keeper.requests(epoch_ended=True) == [0, 1]
    keeper._cost = 1.0
    assert keeper.requests(epoch_ended=True) == [0, 0], "at most 2 % of the time"
    keeper._cost = 0.0
    tiny.fit(tiny.training(keeper=keeper))
    assert (tmp_path / FILES[0]).exists()
    other = Keeper(tmp_path, world=World(1, 2, 1))
    other._saved -= 1e6
    assert other.requests() == [0, 0], "the process that writes knows what that costs"


def test_the_time_of_training_goes_on_without_that_of_other_runs(tmp_path):
    training = tiny.training(tiny.settings(frozen_stages=1))
    first, second = (training.start(tiny.model()) for _ in range(2))
    keeper = Keeper(tmp_path, spent=2e8)
    keeper._began, keeper._saved = keeper._began - 7e8, keeper._saved - 31
    first.away, first.seconds = 4e8, 6.0
    keeper.save(first)
    assert keeper.requests(epoch_ended=True) == [0, 0] and keeper._cost > 0
    ((saved, *_),) = [one.values() for one in _read(tmp_path / FILES[0])["state"]["learners"]]
    assert {"backbone.one.1.running_mean", "backbone.two.0.weight"} < saved.keys()
    assert "backbone.one.0.weight" not in saved, "not trained"
    again = Keeper(tmp_path)
    again.resume(second, None)
    assert again.spent == pytest.approx(5e8) and second.seconds == 6


def one_of_two(rank, folder, points):
    loop.CHECK_EVERY = 3
    term = (lambda: os.kill(os.getpid(), signal.SIGTERM)) if rank == 1 else None  # both stop
    attempts = [("whole", 0, None), ("stopped", 4 * 8 + 1, term), ("stopped", 0, None)]
    attempts += [part for at in points for part in ((f"{at}", at, kill), (f"{at}", 0, None))]
    for number, (name, at, disturb) in enumerate(attempts):
        meet = f"file://{folder}/meet-{number}"
        dist.init_process_group("gloo", meet, timedelta(minutes=2), world_size=2, rank=rank)
        place = folder / name
        place.mkdir(exist_ok=True)
        try:
            with stoppable():
                found, keeper = fit(
                    place, World(rank, 2, rank), at=at if disturb else 0, disturb=disturb
                )
            assert disturb is None, "it was to end before"
            torch.save((found, keeper.resumed), folder / f"{name}-{rank}.pt")
        except (Interrupted, Killed):
            assert at
        dist.barrier()
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_stop_or_die_together_and_go_on(tmp_path):
    points = sorted(np.random.default_rng().choice(np.arange(1, 60), 20, replace=False).tolist())
    torch.multiprocessing.spawn(one_of_two, (tmp_path, points), nprocs=2)
    for rank in (0, 1):
        whole, none = torch.load(tmp_path / f"whole-{rank}.pt")
        found, resumed = torch.load(tmp_path / f"stopped-{rank}.pt")
        assert (none, resumed) == ([], [9])
        assert_same(found, whole)
        for at in points:
            assert_same(torch.load(tmp_path / f"{at}-{rank}.pt")[0], whole)
