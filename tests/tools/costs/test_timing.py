"""Costs under load: the order of models must not depend on what else the machine does."""

import multiprocessing
import os

import pytest
import torch
from torch import nn

from mlbench_tools.costs.timing import (
    ROUNDS,
    TimedPair,
    best_batch,
    compiled,
    cuda_graph,
    eager,
    one_thread,
    read_clock,
    time_pairs,
)

CPU = torch.device("cpu")


class Products(nn.Module):
    """Matrix products, each as much work as the next."""

    def __init__(self, count, device="cpu"):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(256, device=device))
        self.count = count

    def forward(self, images):
        x = images.flatten()[: 256 * 256].view(256, 256).float()
        for _ in range(self.count):
            x = x @ self.weight
        return x


def images(batch=4, device="cpu"):
    return torch.ones(batch, 3, 160, 160, dtype=torch.uint8, device=device)


def busy():
    while True:
        sum(range(100_000))


@pytest.fixture
def load():
    """A busy process for each core."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=busy, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in started:
        process.start()
    yield
    for process in started:
        process.terminate()
        process.join()


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_on_a_busy_machine_equal_models_are_told_equal_and_a_dearer_one_dearer(load):
    with one_thread(), torch.inference_mode():
        bare = eager(Products(8), images())
        # One model twice: where its weights lie in memory may be worth some percent.
        models = [eager(Products(10), images())] * 2 + [eager(Products(20), images())]
        found = time_pairs([TimedPair(model, bare, 4) for model in models], CPU, 0.3)
    first, second, dearer = found
    assert first.ratio_low <= second.ratio_high and second.ratio_low <= first.ratio_high
    assert max(first.ratio_high, second.ratio_high) < dearer.ratio_low
    assert dearer.median_ms > max(first.median_ms, second.median_ms)
    assert 0 < dearer.p05_ms <= dearer.median_ms <= dearer.p95_ms
    assert dearer.head_ms > 0 and dearer.batch_size == 4 and dearer.rounds >= ROUNDS[0]


def test_what_would_take_too_long_is_left_out():
    call = eager(Products(2), images())
    assert time_pairs([TimedPair(call, call, 1)], CPU, 1e-9) == [None]


def test_a_single_thread_is_used_and_the_others_come_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_the_best_batch_size_is_found_where_larger_ones_gain_nothing():
    class Waits(nn.Module):
        """One call is as much work as another up to four images; then each four are."""

        def forward(self, images):
            torch.zeros(len(images)).numpy()
            return Products(10 * -(-len(images) // 4))(images.expand(-1, 3, 160, 160))

    assert best_batch(Waits(), images(1).expand(64, 3, 160, 160)) >= 4


@pytest.mark.slow
def test_a_compiled_model_computes_the_same():
    model = Products(2)
    with torch.inference_mode():
        assert torch.allclose(compiled(model, images())(), model(images()))


class Waiting(Products):
    def forward(self, x):
        return super().forward(x) + super().forward(x).sum().item()


@pytest.mark.gpu
def test_a_model_that_waits_for_the_device_spoils_no_graph_after_it():
    device = torch.device("cuda")
    batch = images(device=device)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match="synchronizing"):
            cuda_graph(Waiting(2, device), batch)
        cuda_graph(Products(2, device), batch)()
        torch.cuda.synchronize()


@pytest.mark.gpu
def test_a_graph_replays_the_model_and_takes_less_time_than_launching_it():
    device = torch.device("cuda")
    model, batch = Products(200, device), images(device=device)
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        pairs = [TimedPair(run(model, batch), eager(Products(1, device), batch), 4) for run in (
            cuda_graph, eager, compiled
        )]  # fmt: skip
        graph, launched, _ = time_pairs(pairs, device, 0.3)
    assert graph.median_ms < launched.median_ms and graph.lost == 0
    assert read_clock(pairs[0].model, 3, device).ms > 0
