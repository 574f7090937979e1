"""Processes that share a run: close to one process, and another run id."""

import copy
from datetime import timedelta
from functools import partial
from itertools import repeat
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn

from mlbench.engine import distributed
from mlbench.engine.batch_parts import CpuSyncBatchNorm, synchronize
from mlbench.engine.distributed import World
from mlbench.plan import make_plan
from mlbench.suite import make_suite
from mlbench.types import HeadOutput, Interrupted, Places
from mlbench_plugins.methods.add_gcn import SingleImageBatchNorm
from tests.engine import tiny
from tests.engine.tiny import fit, flat


class NormedHead(nn.Module):
    """Batch norms of maps, with fused activation, and of vectors: cumulative, and for one image."""

    def __init__(self):
        super().__init__()
        self.maps = BatchNormAct2d(6)
        self.vectors = nn.BatchNorm1d(6, momentum=None, affine=False)
        self.single = SingleImageBatchNorm(6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, features):
        pooled = self.maps(features[-1]).mean((2, 3))
        return HeadOutput(
            self.classifier(self.single(self.vectors(pooled))), {"size": pooled.square().mean()}
        )


def test_tensors_of_any_layout_are_the_leaders(monkeypatch):
    """NCCL, as its source says, refuses what is not contiguous; Gloo does not."""

    def nccl(tensor, src):
        if not tensor.is_contiguous():
            raise ValueError("Tensors must be contiguous")
        tensor.fill_(7)

    monkeypatch.setattr(dist, "broadcast", nccl)
    whole = torch.zeros(4, 6)
    parts = [whole.T, whole[:, ::2], torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)]
    World(1, 2, 1).broadcast_tensors(parts)
    assert all((part == 7).all() for part in (whole, *parts))


def all_at_once(**changes):
    """Batches of 8 in parts of 3, 3 and 2 images, with all that works on gradients or peers."""
    return tiny.settings(sam_rho=0.1, mutual_weight=0.5, ema_decay=0.5, grad_clip=0.5, **changes)


def outcomes(world):
    """Of whole batches, and of batches in two parts."""
    return [
        outcome(tiny.training(all_at_once(grad_accumulation=parts), world=world))
        for parts in (1, 2)
    ]


def outcome(training):
    state = fit(training, *(tiny.model(seed, NormedHead) for seed in (0, 1)))
    buffers = {name: b.clone() for name, b in state.learners[0].model.named_buffers()}
    entries = [(entry.loss, entry.grad_norm, *entry.aux.values()) for entry in state.log]
    return state.losses, entries, flat(state.evaluated()), buffers


def one_of_three(rank, folder):
    """Train with both others, then with one of them."""
    for size in (3, 2)[: 1 if rank == 2 else 2]:
        meet = f"file://{folder}/meet-{size}"
        dist.init_process_group("gloo", meet, timedelta(minutes=2), world_size=size, rank=rank)
        torch.save(outcomes(World(rank, size, rank)), f"{folder}/{rank}-of-{size}.pt")
        dist.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_with_one_on_trained_batch_norms(tmp_path):
    alone = outcomes(World())
    torch.multiprocessing.spawn(one_of_three, (tmp_path,), nprocs=3)
    for rank, size in ((0, 3), (1, 3), (2, 3), (0, 2), (1, 2)):
        together = torch.load(tmp_path / f"{rank}-of-{size}.pt")
        for found, (losses, entries, weights, buffers) in zip(together, alone, strict=True):
            assert found[0] == pytest.approx(losses, rel=1e-5)
            assert found[1] == [pytest.approx(entry, rel=1e-5) for entry in entries]
            torch.testing.assert_close(found[2], weights, rtol=1e-5, atol=1e-6)
            for name, value in buffers.items():
                torch.testing.assert_close(found[3][name], value, rtol=1e-5, atol=1e-6, msg=name)
        for found, leader in zip(together, torch.load(tmp_path / f"0-of-{size}.pt"), strict=True):
            assert torch.equal(found[2], leader[2]), "moving averages under SAM"
            assert all(torch.equal(found[3][name], leader[3][name]) for name in found[3])


@pytest.fixture
def alone(tmp_path):
    """A group of one process."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", world_size=1, rank=0)
    yield
    dist.destroy_process_group()


def test_processes_wait_for_each_other_while_any_makes_progress(alone, monkeypatch):
    """Two processes of a run, in one."""
    leader, other, store = World(0, 2, 0), World(1, 2, 1), distributed._store()
    store.set_timeout(timedelta(milliseconds=10))
    monkeypatch.setattr(distributed, "_WAITS", repeat(1))  # both are at their first wait
    for wait in (leader.wait, partial(other.ask_leader, dict)):
        with pytest.raises(TimeoutError, match="make no progress"):
            wait()
    with pytest.raises(Interrupted):
        leader.ask_leader(Mock(side_effect=Interrupted("SIGTERM")))
    other.ask_leader(dict)
    done = iter([other.beat, other.beat, other.beat, partial(store.add, "arrived 2", 1)])

    def wait(*asked):
        next(done)()
        store.wait(*asked)

    busy = SimpleNamespace(wait=wait, add=store.add, set=store.set, timeout=store.timeout)
    monkeypatch.setattr(distributed, "_store", lambda: busy)
    distributed._wait_for("arrived 2")


@pytest.mark.parametrize("says", [True, False])
def test_a_batch_norm_that_says_so_is_torchs_in_several_processes(alone, says, monkeypatch):
    monkeypatch.setattr(SingleImageBatchNorm, "synchronizable", says)
    norm = SingleImageBatchNorm(3)
    synchronize(norm, torch.device("cpu"))
    assert (type(norm) is CpuSyncBatchNorm) is says


@pytest.mark.parametrize(("far", "momentum"), [(0.0, None), (1e4, 0.3)])
def test_a_synchronized_batch_norm_is_torchs(alone, far, momentum):
    """Values and gradients, of values far from 0, too, where sums of squares have no digits."""
    torch.manual_seed(0)
    own, theirs = (BatchNormAct2d(5, eps=0.1, momentum=momentum) for _ in range(2))
    theirs.double()
    synchronize(own, torch.device("cpu"))
    assert type(own) is not BatchNormAct2d
    x = torch.randn(4, 5, 3, 3) + far
    inputs = x.clone().requires_grad_(), x.double().requires_grad_()
    outputs = own(inputs[0]), theirs(inputs[1])
    weights = torch.randn(4, 5, 3, 3)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1].float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad.float(), rtol=1e-3, atol=1e-3)
    for name, buffer in theirs.named_buffers():
        found = own.get_buffer(name)
        torch.testing.assert_close(found, buffer.to(found.dtype), msg=name)
    torch.testing.assert_close(own.eval()(x), theirs.eval()(x.double()).float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm, SyncBatchNormAct])
def test_a_single_value_alone_is_normalized_by_the_running_statistics(kind):
    own, maps = kind(3), torch.randn(1, 3, 2, 2)
    synchronize(own, torch.device("cpu"))
    before = copy.deepcopy(own)
    for x in (maps[..., 0, 0], maps[..., :1, :1]):
        assert torch.equal(own(x), before.eval()(x))
    assert torch.equal(own.running_mean, before.running_mean)
    assert not torch.equal(own(maps), before(maps)), "an image has several"


OWN = type("BatchNormAct2d", (nn.BatchNorm1d,), {"forward": lambda self, x: x + self.running_mean})


@pytest.mark.parametrize(
    "norm", [OWN(3), nn.BatchNorm1d(3, track_running_stats=False), SingleImageBatchNorm(3)]
)
def test_batch_norms_that_are_not_as_torchs_stay_as_they_are(norm):
    own, x = copy.deepcopy(norm), torch.randn(8, 3)
    synchronize(own, torch.device("cpu"))
    assert type(own) is type(norm)
    assert torch.equal(own(x), norm(x)) and torch.equal(own.eval()(x), norm.eval()(x))


def test_the_number_of_processes_is_part_of_the_run_id(tmp_path, cache):
    """Rounding depends on it even if nothing else does, and training enlarges that."""
    suites = (make_suite({"plugins": ["gap"], "processes": n}) for n in (1, 3))
    places = Places(results=tmp_path, cache=cache)
    (alone,), (together,) = (make_plan(suite, places).missing for suite in suites)
    assert together == alone.model_copy(update={"processes": 3})
    assert together.run_id != alone.run_id
    assert "processes" not in alone.model_dump_json(exclude_defaults=True)
    untrained = alone.model_copy(
        update={"settings": alone.settings.model_copy(update={"epochs": 0})}
    )
    assert untrained.trained_by(3).run_id == untrained.run_id
