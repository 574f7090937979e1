"""Predictions of a whole split, and the choice of the best epoch by its mAP."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.loader import (
    Batch,
    Inputs,
    Positions,
    Source,
    batches,
    is_out_of_memory,
    whole_batches,
)
from mlbench.engine.distributed import World
from mlbench.engine.memory import memory_error
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, autocast
from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import Count
from mlbench.types import HeadOutput, Index, Precision, Predictions

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 64
"""Images per batch; another size changes the last digits of logits at most."""


def predict(
    network: Callable[..., HeadOutput],
    source: Source,
    index: Index,
    world: World,
    *,
    device: torch.device,
    precision: Precision,
    batch_size: int,
    count: Count = lambda *_: None,
    remark: Callable[[str], None] = log.warning,
) -> Predictions:
    """Logits float32 [N, C] in index order; the network receives ``index.known``.

    They are the same on every process. Each process predicts whole batches without padding, so that
    every image counts once. Batches that do not fit into memory are halved; ``remark`` gets a note
    of it. ``count`` gets the number of images that this process has predicted.

    Raises:
        BatchMemoryError: a single image does not fit.
    """
    order = whole_batches(len(index), batch_size, world.rank, world.size)

    def logits_of(batch: Batch) -> NDArray[np.float32]:
        known = None if index.known is None else torch.from_numpy(index.known[batch.positions])
        told = () if known is None else (known.to(device),)
        with autocast(device, precision):
            logits = network(to_device(batch.inputs, device), *told).logits
        return logits.float().cpu().numpy()

    given = source, index, order, device, batch_size, remark, "predicted"
    found, done = [np.zeros((0, index.targets.shape[1]), np.float32)], 0
    with torch.inference_mode():
        for rows in in_parts(logits_of, *given):
            found.append(rows)
            done += len(rows)
            count(done, sum(map(len, order)))
    gathered = np.concatenate(world.gather(np.concatenate(found)))
    return Predictions(gathered, index.targets, tuple(index.keys))


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs to the device; feature maps are stored in half precision and used in single."""
    if isinstance(inputs, tuple):
        return tuple(x.to(device, non_blocking=True).float() for x in inputs)
    return inputs.to(device, non_blocking=True)


def in_parts(
    use: Callable[[Batch], T],
    source: Source,
    index: Index,
    order: Iterable[Positions],
    device: torch.device,
    size: int,
    remark: Callable[[str], None],
    done: str,
) -> Iterator[T]:
    """Yield ``use(batch)`` of the batches of an order, which have at most ``size`` images.

    If memory runs out, as a batch is loaded or used, this batch and those after it are halved; in
    the end ``remark`` gets a note of it, which begins with what was ``done``.

    Raises:
        BatchMemoryError: a single image does not fit.
    """
    rest, begun, most = iter(order), deque[Positions](), size

    def drawn() -> Iterator[Positions]:
        for positions in rest:
            parts = [positions[i : i + most] for i in range(0, len(positions), most)]
            begun.extend(parts)
            yield from parts

    while True:
        try:
            for batch in batches(source, index, drawn(), device=device):
                yield use(batch)
                begun.popleft()
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            most = len(begun[0]) // 2 if begun else 0
            if not most:
                raise memory_error(error, f"{device}, with a single image") from error
        rest = chain([*begun], rest)
        begun.clear()
    if most < size:
        text = f"{done} in batches of {most} for want of memory, not of {size}"
        remark(f"{text}: numbers may differ in their last digits")


@dataclass(frozen=True)
class Evaluator:
    """Predicts a split with a model in training.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        count: gets the number of predicted images.
        remark: gets notes for the record.
    """

    index: Index
    source: Source
    world: World
    device: torch.device
    probe: bool = False
    count: Count = lambda *_: None
    remark: Callable[[str], None] = log.warning

    def __call__(self, model: MultiLabelModel) -> Predictions:
        """Logits of the split, the same on every process; ``model`` is in evaluation mode.

        Predicts in full precision, since bfloat16 would tie many images. All processes take
        the leader's batch norm statistics, as each process has its own between two steps.
        """
        self.world.broadcast_tensors(b for b in model.buffers() if b.is_floating_point())
        return predict(
            ProbeNetwork(model) if self.probe else model,
            self.source,
            self.index,
            self.world,
            device=self.device,
            precision="fp32",
            batch_size=BATCH,
            count=self.count,
            remark=self.remark,
        )


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch so far (from 1): its mAP in percent, weights and predictions."""

    epoch: int
    mAP: float  # noqa: N815 - the field's own spelling
    weights: dict[str, Tensor]
    predictions: Predictions


def select_best(
    best: BestEpoch | None, epoch: int, model: MultiLabelModel, evaluator: Evaluator
) -> tuple[float | None, BestEpoch | None]:
    """The mAP of an epoch in percent, and the best epoch so far; the first one wins ties.

    An epoch with a logit that is not finite has no mAP and is never the best.
    """
    predictions = evaluator(model)
    logits, targets = predictions.logits, predictions.targets
    if not np.isfinite(logits).all():
        return None, best
    by_class = evaluator.world.ask_leader(lambda: average_precision(logits, targets))
    found = 100 * float(np.nanmean(by_class))
    if best is not None and found <= best.mAP:
        return found, best
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return found, BestEpoch(epoch, found, weights, predictions)
