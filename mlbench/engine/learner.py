"""One model as it learns: its weights, its optimiser, its loss scale and its moving average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlbench.engine import optimise
from mlbench.engine.model import MultiLabelModel
from mlbench.types import Settings


@dataclass
class Learner:
    """A model in training, and all that an optimiser step changes."""

    model: MultiLabelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def backward(self, loss: Tensor) -> None:
        """The gradient of a loss in place of what there was, scaled in half precision."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()

    def overflowed(self) -> bool:
        """Whether the scaler is going to leave the step out for this gradient."""
        if not self.scaler.is_enabled():  # nothing is ever left out, and nothing need be waited for
            return False
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return not nn.utils.get_total_norm(gradients).isfinite()

    def update(self, clip: float) -> Tensor:
        """The optimiser's step and the average's; returns the gradient's norm before clipping.

        Args:
            clip: largest global norm of the gradient; 0 does not clip.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, clip or float("inf"))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return norm


def make(model: MultiLabelModel, settings: Settings, *, scaled: bool, averaged: bool) -> Learner:
    """A learner before its first step.

    Args:
        model: on its device.
        settings: of the run.
        scaled: scale the loss, for half precision.
        averaged: keep the moving average that the settings ask for.
    """
    optimise.freeze(model, settings)
    average = None
    if averaged and settings.ema_decay:
        average = AveragedModel(
            model, multi_avg_fn=_moving_average(settings.ema_decay), use_buffers=True
        )
    return Learner(
        model=model,
        optimizer=optimise.optimizer(model, settings),
        scaler=torch.amp.GradScaler(model.mean.device.type, enabled=scaled),
        average=average,
    )


def _moving_average(decay: float) -> Any:
    """Averages weights and statistics; whole numbers are taken over as they are.

    torch's own averages those too and rounds towards zero, which turns indices into others.
    """
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        if averages[0].is_floating_point():
            average(averages, current, count)
        else:
            for old, new in zip(averages, current, strict=True):
                old.copy_(new)

    return update
