"""Time models against their bare backbones, so that other work does not change their order.

A round calls the bare backbone and the model, one right after the other; the result is the ratio of
their times, as the median over many rounds in which the models take turns.
On a CPU the clock is the processor time of a single thread, which other work cannot take.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlbench.types import Timing

Call = Callable[[], object]
"""One forward pass on a fixed batch."""
Runtime = Callable[[nn.Module, Tensor], Call]
"""Prepares a model for a batch of uint8 images [B, 3, H, W] on its device; warms it up."""

WARM_UP = 3
ROUNDS = range(5, 21)
"""Fewest and most rounds of a pass."""
PASSES = 3
"""Largest number of passes of an unsteady timing; a busy but steady one has at most two."""
SHORTEST_MS = 5.0
"""Calls shorter than this are repeated within a reading."""
LONGEST = 8.0
"""Largest duration of a pass of the fewest rounds, as a multiple of the requested seconds."""


# ---------------------------------------------------------------------------------------- runtimes
def eager(model: nn.Module, images: Tensor) -> Call:
    """The module as it is."""
    return _warmed_up(functools.partial(model, images))


def compiled(model: nn.Module, images: Tensor) -> Call:
    """``torch.compile`` for this batch size; on CUDA its kernels are replayed as a graph."""
    # Every model is another instance of the same classes, which torch counts as recompilations.
    torch._dynamo.config.recompile_limit = 10_000
    torch._dynamo.config.accumulated_recompile_limit = 10_000
    fast: nn.Module = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return (cuda_graph if images.is_cuda else eager)(fast, images)


def cuda_graph(model: nn.Module, images: Tensor) -> Call:
    """The model's kernels, captured once and replayed, without Python and launches."""
    device = images.device
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    call = functools.partial(model, images)
    with torch.cuda.stream(side):
        _warmed_up(call)
        _assert_never_waits(call)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_shared_memory(device).pool()):
        kept = model(images)
    # The graph reads the weights and the images by address.
    return functools.partial(_replay, graph, (model, images, kept))


def _assert_never_waits(call: Call) -> None:
    """Raise ``RuntimeError`` if a call waits for the device, as no graph can.

    A capture that fails would leave the memory of all graphs useless for the models that follow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it finds most waits, not all
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@functools.cache
def _shared_memory(device: torch.device) -> torch.cuda.CUDAGraph:
    """An empty graph whose memory all graphs share: they run one at a time and read no other's."""
    graph = torch.cuda.CUDAGraph()
    # What the first graph keeps for all must not be an inference tensor (pytorch issue 166792).
    with torch.inference_mode(False), torch.cuda.graph(graph):
        torch.zeros(1, device=device)
    return graph


def _replay(graph: torch.cuda.CUDAGraph, _: object) -> None:
    graph.replay()


def _warmed_up(call: Call) -> Call:
    for _ in range(WARM_UP):
        call()
    return call


# ------------------------------------------------------------------------------------------ clocks
class Reading(NamedTuple):
    """Milliseconds of one call, and the elapsed time that they were taken from."""

    ms: float
    elapsed_ms: float


def read_clock(call: Call, repeats: int, device: torch.device) -> Reading:
    """Time a call: CUDA's events, else processor time (of all threads; see ``one_thread``)."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        ms = float(start.elapsed_time(end)) / repeats
        return Reading(ms, ms)
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        call()
    if device.type == "mps":
        torch.mps.synchronize()
    worked, elapsed = time.process_time() - worked, time.perf_counter() - began
    ms = 1000 * elapsed / repeats
    return Reading(ms if device.type == "mps" else 1000 * worked / repeats, ms)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with a single thread, and flush denormal numbers, which random weights may make.

    Several threads wait for each other whenever other work has one of their cores: on two busy
    cores, two threads took twenty times as long as one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------------ rounds
class TimedPair(NamedTuple):
    """A model and its bare backbone, prepared for batches of the same size."""

    model: Call
    bare: Call
    batch_size: int


def time_pairs(
    pairs: Sequence[TimedPair],
    device: torch.device,
    seconds: float,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timing | None]:
    """Time models in rotating order, each right after or before its bare backbone.

    Busy or unsteady timings are repeated (see ``PASSES``); all rounds count. ``tell`` receives
    the number of finished rounds of a pass, and of all its rounds.

    Returns:
        For each pair its timing; None if it would take too long.
    """
    repeats, rounds = [], []
    for pair in pairs:
        once = sum(min(read_clock(c, 1, device).ms for _ in range(2)) for c in pair[:2])
        repeats.append(1 + int(2 * SHORTEST_MS / once))
        rounds.append(1000 * seconds / (once * repeats[-1]))
    found: list[Timing | None] = [None] * len(pairs)
    taken: list[list[list[Reading]]] = [[] for _ in pairs]
    due = [i for i, n in enumerate(rounds) if n * LONGEST >= ROUNDS[0]]
    for number in range(PASSES):
        turns = min(math.ceil(max([ROUNDS[0], *(rounds[i] for i in due)])), ROUNDS[-1])
        for turn in range(turns):
            tell(turn, turns)
            first = turn % max(1, len(due))
            for i in (*due[first:], *due[:first]):
                if turn < max(ROUNDS[0], rounds[i]):
                    order = 1 if turn % 2 else -1  # the bare backbone is first in even turns
                    calls = pairs[i][:2][::order]
                    readings = [read_clock(call, repeats[i], device) for call in calls]
                    taken[i].append(readings[::order])
        for i in due:
            found[i] = _summary(taken[i], pairs[i].batch_size)
        repeated = ("busy", "unsteady")[number > 0 :]
        due = [i for i in due if (timing := found[i]) is not None and timing.trouble in repeated]
    return found


def _summary(taken: Sequence[Sequence[Reading]], batch_size: int) -> Timing:
    times_R22: NDArray[np.float64] = np.array(taken)
    model_R, bare_R = times_R22[:, 0, 0], times_R22[:, 1, 0]
    worked, elapsed = times_R22.sum((0, 1))
    # The order statistics that bound the median with 95 % confidence (normal approximation).
    half = 0.98 / len(taken) ** 0.5
    ends = max(0.0, 0.5 - half), 0.5, min(1.0, 0.5 + half)
    low, middle, high = np.quantile(model_R / bare_R, ends)
    p05, median, p95 = np.quantile(model_R, (0.05, 0.5, 0.95))
    return Timing(
        batch_size=batch_size,
        rounds=len(taken),
        median_ms=median,
        p05_ms=p05,
        p95_ms=p95,
        bare_ms=np.median(bare_R),
        head_ms=np.median(model_R - bare_R),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        lost=max(0.0, 1 - worked / elapsed),
    )


# -------------------------------------------------------------------------------------- throughput
def best_batch(model: nn.Module, images: Tensor) -> int:
    """The batch size with the most images a second, found by doubling it in eager mode.

    Stops when two doublings in a row gain less than 3 %, a call takes a second, or the memory or
    ``images`` are exhausted.
    """
    best, most, size = 1, 0.0, 1
    while size <= min(len(images), 4 * best):
        call = functools.partial(model, images[:size])
        try:
            call()
            ms = min(read_clock(call, 1, images.device).ms for _ in range(3))
        except (MemoryError, RuntimeError):  # out of memory, on the CPU or a GPU
            break
        if size / ms > 1.03 * most:
            best, most = size, size / ms
        if ms > 1000:
            break
        size *= 2
    return best
