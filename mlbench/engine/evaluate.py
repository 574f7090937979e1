"""Logits of a whole split, every image exactly once, on any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from mlbench.data.loader import Inputs, Source, batches, shard
from mlbench.engine.distributed import World
from mlbench.engine.precision import autocast
from mlbench.types import HeadOutput, Index, Precision, Predictions

if TYPE_CHECKING:
    from torch import nn


def predict(
    network: nn.Module | Callable[[Inputs], HeadOutput],
    source: Source,
    index: Index,
    world: World,
    *,
    device: torch.device,
    precision: Precision,
    batch_size: int,
) -> Predictions:
    """Logits float32 [N, C] in the order of the index, the same on every process.

    The split is cut into as many contiguous parts as there are processes, without padding.
    """
    mine = shard(np.arange(len(index)), world.rank, world.size)
    order = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    logits = [np.zeros((0, index.targets.shape[1]), np.float32)]
    with torch.inference_mode(), autocast(device, precision):
        for batch in batches(source, index, order):
            output = network(to_device(batch.inputs, device))
            logits.append(output.logits.float().cpu().numpy())
    together = np.concatenate(world.gather(np.concatenate(logits)))
    return Predictions(together, index.targets, tuple(index.keys))


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The same inputs on the device; feature maps are stored in half precision, used in single."""
    if isinstance(inputs, tuple):
        return tuple(x.to(device, non_blocking=True).float() for x in inputs)
    return inputs.to(device, non_blocking=True)
