"""Load batches in an order that depends only on seed and epoch.

Threads, not processes: JPEG decoding and resizing release the GIL, the label matrix is shared, and
a batch does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.decode import decode

if TYPE_CHECKING:
    from PIL.Image import Image

    from mlbench.types import Index

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
    """Decodes and transforms images: uint8 [B, 3, S, S].

    The random generator of a sample is seeded with (seed, epoch, position), so neither the number
    of workers nor that of processes changes a pixel.
    """

    def __init__(
        self,
        index: Index,
        transform: Callable[[Image, np.random.Generator], Tensor],
        seed: int,
        workers: int,
    ) -> None:
        self.index = index
        self.transform = transform
        self.seed = seed
        self.pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="decode")

    def __call__(self, positions: Positions, epoch: int) -> Tensor:
        """The augmented images at these positions in this epoch."""

        def load(position: int) -> Tensor:
            generator = np.random.default_rng((self.seed, epoch, position))
            return self.transform(decode(self.index.files[position]), generator)

        return torch.stack(list(self.pool.map(load, positions.tolist())))


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
    """Batches in the given order; the next ``ahead`` are made in the background."""
    targets = torch.from_numpy(index.targets)

    def make(positions: Positions) -> Batch:
        return Batch(source(positions, epoch), targets[torch.from_numpy(positions)], positions)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as background:
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
