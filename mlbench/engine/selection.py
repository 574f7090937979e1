"""Which epoch is scored: the best by mAP on a split that is looked at after every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mlbench.data.loader import Source
from mlbench.engine.distributed import World
from mlbench.engine.evaluate import predict
from mlbench.engine.model import MultiLabelModel, ProbeNetwork
from mlbench.metrics.average_precision import average_precision
from mlbench.types import Index, Predictions

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Images at a time; in evaluation it changes no number."""


@dataclass(frozen=True)
class Evaluator:
    """A split, and what it takes to predict it with a model as it stands.

    ``probe`` says that ``source`` yields feature maps, so that only the head is run.
    """

    index: Index
    source: Source
    world: World
    device: torch.device
    probe: bool = False

    def __call__(self, model: MultiLabelModel) -> Predictions:
        """Logits of the split, the same on every process; ``model`` is in evaluation mode.

        In full precision: in bfloat16 many images would tie. Batch norm statistics are a process's
        own between two steps; the leader's are what is kept.
        """
        self.world.agree(b for b in model.buffers() if b.is_floating_point())
        return predict(
            ProbeNetwork(model) if self.probe else model,
            self.source,
            self.index,
            self.world,
            device=self.device,
            precision="fp32",
            batch_size=BATCH,
        )

    def mean_ap(self, predictions: Predictions) -> float | None:
        """The canonical mAP in percent, worked out by the leader; None if a logit is not finite."""

        def work_out() -> float | None:
            if not np.isfinite(predictions.logits).all():
                return None
            by_class = average_precision(predictions.logits, predictions.targets)
            return 100 * float(np.nanmean(by_class))

        return self.world.ask_leader(work_out)


@dataclass(frozen=True)
class Best:
    """The best epoch so far (from 1), its mAP in percent, its weights, and what it predicted."""

    epoch: int
    mAP: float  # noqa: N815 - the field's own spelling
    weights: dict[str, Tensor]
    predictions: Predictions


def better(
    best: Best | None, epoch: int, model: MultiLabelModel, evaluator: Evaluator
) -> tuple[float | None, Best | None]:
    """The mAP of an epoch, and the best of it and those before; of equals the first.

    An epoch with a logit that is not finite has no mAP and is never the best.
    """
    predictions = evaluator(model)
    found = evaluator.mean_ap(predictions)
    if found is None or (best is not None and found <= best.mAP):
        return found, best
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return found, Best(epoch, found, weights, predictions)
