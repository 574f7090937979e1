"""Predictions of a whole split, and the choice of the best epoch by its mAP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlbench.data.loader import Inputs, Source, batches, whole_batches
from mlbench.engine.distributed import World
from mlbench.engine.model import MultiLabelModel, ProbeNetwork, autocast
from mlbench.metrics.average_precision import average_precision
from mlbench.types import HeadOutput, Index, Precision, Predictions

BATCH = 64
"""Images per batch; in evaluation it changes no number."""

Count = Callable[[int, int], None]
"""``Progress.count``."""


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
) -> Predictions:
    """Logits float32 [N, C] in the order of the index, whose known labels the network is told.

    They are the same on every process. Each predicts whole batches, without padding: every image
    counts once. ``count`` is told how many of its images it has predicted.
    """
    order = whole_batches(len(index), batch_size, world.rank, world.size)
    logits = [np.zeros((0, index.targets.shape[1]), np.float32)]
    with torch.inference_mode(), autocast(device, precision):
        for i, batch in enumerate(batches(source, index, order, device=device)):
            count(i * batch_size, sum(map(len, order)))
            inputs = to_device(batch.inputs, device)
            if index.known is None:
                output = network(inputs)
            else:
                output = network(inputs, torch.from_numpy(index.known[batch.positions]).to(device))
            logits.append(output.logits.float().cpu().numpy())
    gathered = np.concatenate(world.gather(np.concatenate(logits)))
    return Predictions(gathered, index.targets, tuple(index.keys))


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs to the device; feature maps are stored in half precision and used in single."""
    if isinstance(inputs, tuple):
        return tuple(x.to(device, non_blocking=True).float() for x in inputs)
    return inputs.to(device, non_blocking=True)


@dataclass(frozen=True)
class Evaluator:
    """Predicts a split with a model in training.

    Attributes:
        probe: ``source`` yields feature maps, and only the head is run.
        count: is told how far it is.
    """

    index: Index
    source: Source
    world: World
    device: torch.device
    probe: bool = False
    count: Count = lambda *_: None

    def __call__(self, model: MultiLabelModel) -> Predictions:
        """Logits of the split, the same on every process; ``model`` is in evaluation mode.

        Predicts in full precision, since bfloat16 would tie many images. The leader's batch norm
        statistics are used on all processes; between two steps each process has its own.
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
    """The mAP of an epoch in percent, and the best epoch up to it; the first of equal ones.

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
