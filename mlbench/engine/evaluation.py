"""Predictions of a whole split, and the choice of the best epoch by its mAP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbench.data.loader import Inputs, Mixed, Source, batches, whole_batches
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, autocast
from mlbench.metrics.average_precision import average_precision
from mlbench.metrics.bootstrap import Count
from mlbench.types import BatchMemoryError, HeadOutput, Index, Predictions

log = logging.getLogger(__name__)

BATCH = 64
"""Images per batch; another size changes the last digits of logits at most."""


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs to the device; feature maps are stored in half precision and used in single."""
    if isinstance(inputs, tuple):
        return tuple(x.to(device, non_blocking=True).float() for x in inputs)
    return inputs.to(device, non_blocking=True)


@dataclass(frozen=True)
class Evaluator:
    """Predicts a split.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        count: gets the number of images that this process has predicted.
        remark: gets notes for the record.
        batch_size: images per batch.
    """

    index: Index
    source: Source
    world: World
    device: torch.device
    probe: bool = False
    count: Count = lambda *_: None
    remark: Callable[[str], None] = log.warning
    batch_size: int = BATCH

    def __call__(self, model: MultiLabelModel) -> Predictions:
        """As ``predict``, with a model in evaluation mode.

        All processes take the leader's batch norm statistics, as each process has its own between
        two steps.
        """
        self.world.broadcast_tensors(b for b in model.buffers() if b.is_floating_point())
        return self.predict(ProbeNetwork(model) if self.probe else model)

    def predict(self, network: Callable[..., HeadOutput]) -> Predictions:
        """Logits float32 [N, C] in index order; the network receives ``index.known``.

        They are the same on every process, and in full precision, since bfloat16 would tie many
        images. Each process predicts whole batches without padding, so that every image counts
        once. Batches that do not fit into memory are halved, which is remarked; if a single image
        does not fit, this raises ``BatchMemoryError``.
        """
        index, world, most = self.index, self.world, self.batch_size
        order = whole_batches(len(index), most, world.rank, world.size)
        logits = [np.zeros((0, index.targets.shape[1]), np.float32)]
        with torch.inference_mode():
            for i, batch in enumerate(batches(self.source, index, order, device=self.device)):
                self.count(i * self.batch_size, sum(map(len, order)))
                rows = Mixed(batch.inputs, batch.targets)
                if index.known is not None:
                    rows = rows._replace(known=torch.from_numpy(index.known[batch.positions]))
                with autocast(self.device, "fp32"):
                    found, most = _forward(network, rows, self.device, most)
                logits += found
        if most < self.batch_size:
            self.remark(
                f"predicted in batches of {most} for want of memory, not of {self.batch_size}: "
                "logits may differ in their last digits"
            )
        gathered = np.concatenate(world.gather(np.concatenate(logits)))
        return Predictions(gathered, index.targets, tuple(index.keys))


def _forward(
    network: Callable[..., HeadOutput], rows: Mixed, device: torch.device, most: int
) -> tuple[list[NDArray[np.float32]], int]:
    """Logits of rows in parts of at most ``most``, and the largest number that fits into memory."""
    logits: list[NDArray[np.float32]] = []
    done, total = 0, len(rows.targets)
    while done < total:
        some = rows.at(slice(done, done + most))
        told = () if some.known is None else (some.known.to(device),)
        try:
            output = network(to_device(some.inputs, device), *told)
            logits.append(output.logits.float().cpu().numpy())
            done += most
        except torch.OutOfMemoryError as error:
            most = min(most, total) // 2
            if not most:
                text = f"out of memory on {device} as it predicts a single image"
                remedy = "give a smaller --image-size, or a device with more free memory"
                raise BatchMemoryError(f"{text}; {remedy}") from error
    return logits, most


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
