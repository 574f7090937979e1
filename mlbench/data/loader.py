"""Load batches in an order that depends only on seed and epoch.

Threads, not processes: decoding and resizing run in C++ without the interpreter lock, the label
matrix is shared, and a batch does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier, Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.decode import load

if TYPE_CHECKING:
    from mlbench.types import Decoder, Index

Positions = NDArray[np.int64]
Inputs = Tensor | tuple[Tensor, ...]


class Source(Protocol):
    """Where the inputs of a model come from: decoded images or cached feature maps."""

    def __call__(self, positions: Positions, epoch: int) -> Inputs:
        """The inputs of the samples at these positions [B]."""


class Batch(NamedTuple):
    """Inputs and targets int8 [B, C] of the samples at ``positions`` [B] of the index."""

    inputs: Inputs
    targets: Tensor
    positions: Positions


class ImageSource:
    """Decodes and transforms images: uint8 [B, 3, S, S], channels last in memory.

    The random generator of a sample is seeded with (seed, epoch, position, 1), so neither the
    number of workers nor that of processes changes a pixel. NumPy fills short seeds up with zeros:
    without the 1, image 0 would share the stream of the shuffle, (seed, epoch).
    """

    def __init__(
        self,
        index: Index,
        transform: Callable[[Tensor, np.random.Generator], Tensor],
        seed: int,
        workers: int,
        decoder: Decoder = "turbo",
    ) -> None:
        self.index = index
        self.transform = transform
        self.seed = seed
        self.decoder = decoder
        self.workers = max(workers, 1)
        self.pool = _single_threaded(self.workers, "decode")

    def __call__(self, positions: Positions, epoch: int) -> Tensor:
        """The augmented images at these positions in this epoch."""
        batch: list[Tensor] = []
        lock = Lock()
        todo = iter(enumerate(positions.tolist()))  # shared: a thread takes what is next

        def fill() -> None:
            for place, position in todo:
                generator = np.random.default_rng((self.seed, epoch, position, 1))
                image = self.transform(load(self.index.files[position], self.decoder), generator)
                with lock:
                    if not batch:
                        batch.append(_empty(len(positions), image))
                batch[0][place] = image

        for task in [self.pool.submit(fill) for _ in range(self.workers)]:
            task.result()
        return batch[0]


def _empty(images: int, like: Tensor) -> Tensor:
    shape = (images, *like.shape)
    return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)


def _single_threaded(workers: int, name: str) -> ThreadPoolExecutor:
    """Threads in which torch starts no further ones: the images keep the cores busy."""
    threads = torch.get_num_threads()
    started = Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # the first call would undo a setting made before it
        torch.set_num_threads(1)  # of the calling thread, and of those that start later
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    wait([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(threads)
    return pool


def training_order(images: int, batch_size: int, seed: int, epoch: int) -> list[Positions]:
    """The global batches of an epoch. A last batch that would not be full is left out, so that
    every step weighs the same; the shuffle changes which images that touches.
    """  # noqa: D205
    order = np.random.default_rng((seed, epoch)).permutation(images)
    full = max(images // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(full)]


def shard(positions: Positions, rank: int, processes: int) -> Positions:
    """This process's part of the positions; the parts cover them exactly once."""
    return np.array_split(positions, processes)[rank]


def batches(
    source: Source, index: Index, order: Iterable[Positions], epoch: int = 0, ahead: int = 2
) -> Iterator[Batch]:
    """Batches in the given order; the next ``ahead`` are made in the background, all at once, so
    that no thread waits for the slowest image of a batch.
    """  # noqa: D205
    targets = torch.from_numpy(index.targets)

    def make(positions: Positions) -> Batch:
        return Batch(source(positions, epoch), targets[torch.from_numpy(positions)], positions)

    with ThreadPoolExecutor(ahead, thread_name_prefix="batches") as background:
        waiting: list[Future[Batch]] = []
        try:
            for positions in order:
                waiting.append(background.submit(make, positions))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
