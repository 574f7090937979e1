"""Every loss, mixing and known labels: two processes make one's run, a killed run goes on to it."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mlbench import registry
from mlbench.contracts.made_up import made_up_context
from mlbench.engine import train as loop
from mlbench.engine.distributed import World
from mlbench.engine.resume import Keeper
from mlbench_plugins.methods.c_tran import CTran
from tests.engine import tiny
from tests.engine.test_resume import Killed
from tests.plugins.losses.test_every_loss import FORMS

LABELS = made_up_context(3)
LINEAR, UNION = ({"labels": labels} for labels in ("linear", "union"))
CASES = {
    **{f"{name} {options}": (name, options, None) for name, options in FORMS},
    "mixup": ("two_way", {}, {"name": "mixup", "options": LINEAR}),
    "mixup union": ("large_loss", {}, {"name": "mixup", "options": UNION}),
    "cutmix": ("hill", {}, {"name": "cutmix", "options": LINEAR}),
    "splicemix": ("csl", {}, {"name": "splicemix"}),
    "c_tran": ("bce", {"reduction": "sum"}, None),
    "c_tran mixup": ("bce", {}, {"name": "mixup", "options": LINEAR}),
}
QUICK = ("splc {}", "large_loss {}", "splicemix", "c_tran")
"""Those that depend on the epoch or draw something; that the others go on, too, is slow to see."""
SHORT = {"epochs": 2, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.01}}
STEPS = 2 * (24 // 5)


class Dying(tiny.Pixels):
    """Images that end the run at one of its batches."""

    def __init__(self, images, at):
        super().__init__(images)
        self.left = at

    def __call__(self, positions, epoch):
        self.left -= 1
        if not self.left:
            raise Killed
        return super().__call__(positions, epoch)


def outcome(case, world=None, keeper=None, dies=0):
    """The loss of each step and the weights at the end, of a run of two epochs of four steps."""
    name, options, mixing = CASES[case]
    loss = registry.find("loss", name).load()(LABELS, **options)
    training = tiny.training(
        tiny.settings(**SHORT, mixing=mixing), loss=loss, world=world or World()
    )
    unknown = np.random.default_rng(2).random(training.index.targets.shape) < 0.2
    index = replace(training.index, targets=np.where(unknown, -1, training.index.targets))
    training = replace(training, index=index, keeper=keeper or Keeper())
    if dies:
        training = replace(training, source=Dying(training.source.images, dies))
    model = tiny.model()
    if "c_tran" in case:
        model.head = CTran(tiny.Backbone.spec, LABELS, layers=2, heads=2, dropout=0.0)
    return tiny.fit(training, model).losses, tiny.flat(model)


def one_of_two(rank, folder):
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", meet, timedelta(minutes=5), world_size=2, rank=rank)
    torch.set_num_threads(1)
    torch.save({case: outcome(case, World(rank, 2, rank)) for case in CASES}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path):
    torch.multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    together = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for case in CASES:
        losses, weights = outcome(case)
        for rank in (0, 1):
            found = together[rank][case]
            assert found[0] == pytest.approx(losses, rel=1e-4, abs=1e-6), case
            torch.testing.assert_close(found[1], weights, rtol=1e-4, atol=1e-5, msg=case)
        assert torch.equal(together[0][case][1], together[1][case][1]), case


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES]
)
def test_a_killed_run_ends_as_one_that_nobody_disturbed(case, tmp_path, monkeypatch):
    """Killed in its second epoch, after a step that was saved."""
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    losses, weights = outcome(case)
    with pytest.raises(Killed):
        outcome(case, keeper=Keeper(tmp_path, every=0.0), dies=STEPS)
    keeper = Keeper(tmp_path, every=0.0)
    found = outcome(case, keeper=keeper)
    assert STEPS // 2 < keeper.resumed[0] < STEPS
    assert found[0] == losses and torch.equal(found[1], weights)
