"""Load batches in an order that depends only on seed and epoch.

Workers are threads: decoding and resizing run in C++ without the interpreter lock, and the label
matrix is shared. A batch does not depend on the number of workers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Barrier, Lock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from mlbench.data.decode import decode_on, load, plain_jpeg
from mlbench.data.transforms import Transform
from mlbench.types import Index, MlbenchError, stream

Positions = NDArray[np.int64]
Inputs = Tensor | tuple[Tensor, ...]
Source = Callable[[Positions, int], Inputs]
"""(positions [B], epoch) -> the inputs of these samples: decoded images or cached feature maps."""


class Batch(NamedTuple):
    """Inputs and targets int8 [B, C] of the samples at ``positions`` [B] of the index."""

    inputs: Inputs
    targets: Tensor
    positions: Positions


class Mixed(NamedTuple):
    """Rows of a batch, which may be mixed.

    Attributes:
        inputs: images [R, 3, H, W], floating point if they are mixed; or feature maps.
        targets: [R, C].
        others: targets of the mixed-in images, weighted 1 - ``weight``; None if there are none.
        weight: weight of the loss on ``targets``.
        known: labels that the head receives, unknown in the targets; None for none.
    """

    inputs: Inputs
    targets: Tensor
    others: Tensor | None = None
    weight: float = 1.0
    known: Tensor | None = None

    def at(self, rows: slice) -> Mixed:
        """A slice of the rows."""
        sliced: Mixed = tree_map(lambda x: x[rows] if isinstance(x, Tensor) else x, self)
        return sliced

    def telling(self, told: Tensor) -> Mixed:
        """Give the head the labels at ``told`` [R, C], and hide them from the loss.

        A label that differs between two mixed images stays unknown to the head.
        """
        if self.others is not None:
            told = told & (self.targets == self.others)
        return self._replace(
            targets=self.targets.masked_fill(told, -1),
            others=None if self.others is None else self.others.masked_fill(told, -1),
            known=self.targets.masked_fill(~told, -1),
        )


_HOST = torch.device("cpu")


class ImageSource:
    """Decodes and transforms images: uint8 [B, 3, S, S], channels last in memory.

    The random generator of a sample depends on seed, epoch and position, so the numbers of workers
    and processes change no pixel. The exception is ``nvjpeg``: whether it resizes a batch together
    depends on the largest image, and then a pixel may differ by 1 of 255.

    Args:
        index: the image files.
        transform: turns a decoded image into the model's input; its view names the decoder.
        seed: seed of the augmentation.
        workers: decoding threads; 0 counts as 1.
        device: where ``nvjpeg`` decodes; other decoders leave batches on the host.
        read: returns the image at a position; None decodes its file.
    """

    def __init__(
        self,
        index: Index,
        transform: Transform,
        seed: int,
        workers: int,
        device: torch.device = _HOST,
        read: Callable[[int], Tensor] | None = None,
    ) -> None:
        self.index, self.transform, self.seed, self.device = index, transform, seed, device
        decoder = transform.view.decoder
        self.read = read or (lambda position: load(index.files[position], decoder))
        self.workers = max(workers, 1)
        self.pool = _single_threaded(self.workers)

    def __call__(self, positions: Positions, epoch: int) -> Tensor:
        """The augmented images at these positions in this epoch."""
        if self.transform.view.decoder == "nvjpeg" and self.device.type == "cuda":
            return self._on_device(positions, epoch)
        batch: list[Tensor] = []
        lock = Lock()
        todo = iter(enumerate(positions.tolist()))  # shared: each thread takes the next item

        def fill() -> None:
            for place, position in todo:
                image = self.transform(self.read(position), self._chance(epoch, position))
                with lock:
                    if not batch:
                        batch.append(_empty(len(positions), image))
                batch[0][place] = image

        for task in [self.pool.submit(fill) for _ in range(self.workers)]:
            task.result()
        return batch[0]

    def _chance(self, epoch: int, position: int) -> np.random.Generator:
        return stream("augmentation", self.seed, epoch, position)

    def _on_device(self, positions: Positions, epoch: int) -> Tensor:
        """Decode JPEGs together on the device, and other files on the host meanwhile."""
        files = [self.index.files[position] for position in positions.tolist()]
        data = list(self.pool.map(plain_jpeg, files))
        others = [file for file, one in zip(files, data, strict=True) if one is None]
        loaded = self.pool.map(load, others)
        try:
            decoded = iter(decode_on(self.device, [one for one in data if one is not None]))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            data, loaded = [None] * len(files), self.pool.map(load, files)  # names the damaged file
        images = [next(loaded).to(self.device) if one is None else next(decoded) for one in data]
        chances = [self._chance(epoch, position) for position in positions.tolist()]
        return self.transform.batch(images, chances)


def _empty(images: int, like: Tensor) -> Tensor:
    """An empty batch; pinned if CUDA is in use, so that the copy to the device is asynchronous."""
    return torch.empty(
        (images, *like.shape),
        dtype=torch.uint8,
        memory_format=torch.channels_last,
        pin_memory=torch.cuda.is_initialized(),
    )


def _single_threaded(workers: int) -> ThreadPoolExecutor:
    """A pool whose threads run torch single-threaded, as the images keep the cores busy."""
    threads = torch.get_num_threads()
    started = Barrier(workers)

    def start() -> None:
        torch.get_num_threads()  # the first call would undo a setting made before it
        torch.set_num_threads(1)  # for this thread and those that start later
        started.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    wait([pool.submit(start) for _ in range(workers)])
    torch.set_num_threads(threads)
    return pool


def training_order(images: int, batch_size: int, seed: int, epoch: int) -> list[Positions]:
    """The shuffled global batches of an epoch.

    An incomplete last batch is left out, so that all steps have equal weight.
    """
    order = stream("shuffle", seed, epoch).permutation(images)
    full = max(images // batch_size, 1)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(full)]


def draw_known(
    images: int, labels: int, most: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the labels of each image of a global batch that the head receives: bool [B, C].

    Their number is uniform in 0 to floor(``most`` C); the labels are drawn at random.
    """
    counts_B = rng.integers(0, int(most * labels) + 1, images)
    told_BC: NDArray[np.bool_] = rng.random((images, labels)).argsort(axis=1) < counts_B[:, None]
    return told_BC


def part_sizes(images: int, processes: int) -> list[int]:
    """The number of images that each process gets of a batch."""
    return [len(part) for part in np.array_split(np.arange(images), processes)]


def micro_batches(rows: int, number: int, rank: int, processes: int) -> list[Positions]:
    """Divide the rows of a global batch into micro-batches; return this process's part of each."""
    parts = np.array_split(np.arange(rows), number)
    return [np.array_split(part, processes)[rank] for part in parts]


def whole_batches(images: int, size: int, rank: int, processes: int) -> list[Positions]:
    """This process's share of the batches of a split, in order; it may have none.

    Batches begin at the same images for any number of processes, as the last digits of a kernel's
    results may depend on the batch size.
    """
    starts = np.array_split(np.arange(0, images, size), processes)[rank]
    return [np.arange(start, min(start + size, images)) for start in starts]


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all batches, since the allocator keeps memory that it freed for each stream."""
    return torch.cuda.Stream(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for torch's errors for want of a device's memory, of which contexts have others."""
    said = "out of memory" in str(error) or "ALLOC_FAILED" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError)


@contextmanager
def typed_memory_errors(make: Callable[[RuntimeError], MlbenchError]) -> Iterator[None]:
    """Within the block, an error for want of memory is raised as what ``make`` makes of it."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise make(error) from error


def batches(
    source: Source,
    index: Index,
    order: Iterable[Positions],
    epoch: int = 0,
    device: torch.device = _HOST,
) -> Iterator[Batch]:
    """Yield batches in the given order, on a device; the next two are made in the background.

    Both are made at once, so that no thread waits for the slowest image of a batch. On CUDA a
    separate stream copies them while the device computes.
    """
    targets = torch.from_numpy(index.targets)
    stream = _copying_stream(device) if device.type == "cuda" else None

    def make(positions: Positions) -> tuple[Batch, torch.cuda.Event | None]:
        with torch.cuda.stream(stream):  # per thread; does nothing for None
            inputs, rows = source(positions, epoch), targets[torch.from_numpy(positions)]
            if stream is None:
                return Batch(inputs, rows, positions), None
            pin = tree_map(lambda x: x if x.is_cuda else x.pin_memory(), (inputs, rows))
            moved = tree_map(lambda x: x.to(device, non_blocking=True), pin)
            return Batch(moved[0], moved[1], positions), stream.record_event()

    def received(future: Future[tuple[Batch, torch.cuda.Event | None]]) -> Batch:
        batch, copied = future.result()
        if copied is not None:
            current = torch.cuda.current_stream(device)
            copied.wait(current)
            for tensor in tree_leaves((batch.inputs, batch.targets)):
                tensor.record_stream(current)  # its memory is not reused while it is read
        return batch

    with ThreadPoolExecutor(2, thread_name_prefix="batches") as background:
        waiting: list[Future[tuple[Batch, torch.cuda.Event | None]]] = []
        for positions in order:
            waiting.append(background.submit(make, positions))
            if len(waiting) > 2:
                yield received(waiting.pop(0))
        while waiting:
            yield received(waiting.pop(0))
