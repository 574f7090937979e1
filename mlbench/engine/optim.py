"""Parameter groups, learning rates, SAM, and the state that an optimizer step changes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mlbench.engine.batch_parts import BATCH_NORM, restored
from mlbench.engine.model import MultiLabelModel
from mlbench.types import Optimizer, Schedule, Settings, SuiteError

NORMS = (nn.LayerNorm, nn.RMSNorm)
"""Normalizations whose weights may have several dimensions; those of others have one."""
MOMENTA = (0.95, 0.85)
"""Highest and lowest cycled momentum: the defaults of torch's ``OneCycleLR``."""
TINY = 1e-12
"""Keeps a gradient of zero from becoming a step of NaN."""


# ----------------------------------------------------------------------------------------- freezing
def frozen_stages(model: MultiLabelModel, settings: Settings) -> Sequence[Sequence[Any]]:
    """The stages of the backbone that are not trained.

    Raises:
        SuiteError: the backbone has fewer stages than are to be frozen.
    """
    stages = model.backbone.stages()
    count = settings.frozen_stages
    if count > len(stages):
        raise SuiteError(
            f"frozen_stages is {count} but {settings.backbone} has {len(stages)} stages; "
            "give at most that many, or -1 for all"
        )
    return stages if count == -1 else stages[:count]


def set_training_mode(model: MultiLabelModel, settings: Settings) -> None:
    """Switch to training mode, except all modules of frozen stages.

    With ``freeze_bn`` the backbone's batch norms also stay in evaluation mode.
    """
    model.train()
    count = len(frozen_stages(model, settings))
    for i, stage in enumerate(model.backbone.stages()):
        for module in [m for part in stage if isinstance(part, nn.Module) for m in part.modules()]:
            if i < count or (settings.freeze_bn and isinstance(module, BATCH_NORM)):
                module.eval()


# ---------------------------------------------------------------------------------------- optimizer
def make_optimizer(model: MultiLabelModel, settings: Settings) -> torch.optim.Optimizer:
    """Make an optimizer of the parameters that require gradients.

    Head, backbone and the biases of each may have different learning rates; parameters without
    weight decay have groups of their own.
    """
    chosen = settings.optimizer
    groups = [
        *_groups(model.head, chosen, chosen.lr),  # type: ignore[arg-type]
        *_groups(model.backbone, chosen, chosen.lr * settings.backbone_lr_scale),  # type: ignore[arg-type]
    ]
    groups = groups or [{"params": []}]  # a model without weights to train
    # One kernel for all parameters; it also skips an overflow without asking the device for it.
    fused = True if model.mean.is_cuda else None
    if chosen.name == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=chosen.momentum, fused=fused)
        # Torch leaves the momentum uninitialised if the first fused step overflows.
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
    return kind(groups, betas=(chosen.momentum, 0.999), fused=fused)


def _groups(part: nn.Module, chosen: Optimizer, rate: float) -> list[dict[str, Any]]:
    """The trained parameters of a part of the model, by learning rate and weight decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            bias = name.endswith("bias") or name.startswith("bias_")  # as in nn.LSTM
            small = bias or parameter.ndim < 2 or isinstance(module, NORMS)
            decay = 0.0 if small and not chosen.decay_norms_and_biases else chosen.weight_decay
            lr = rate * chosen.bias_lr_scale if bias else rate
            groups.setdefault((lr, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay}
        for (lr, decay), parameters in groups.items()
    ]


# ----------------------------------------------------------------------------------- learning rates
def learning_rate_factor(schedule: Schedule, step: int, epoch_steps: int, steps: int) -> float:
    """The factor of the learning rate at a step of a run of ``steps`` steps."""
    rise = schedule.warmup * epoch_steps
    factor = min((step + 1) / rise, 1.0) if rise > 0 else 1.0
    if schedule.name == "one_cycle":  # 1/div -> 1 over `pct_start` of the run -> 1/(div*final_div)
        ends = 1 / schedule.div, 1 / (schedule.div * schedule.final_div)
        return factor * _one_cycle(schedule, step, steps, ends, 1.0)
    if schedule.name == "step":
        passed = sum(step >= milestone * epoch_steps for milestone in schedule.milestones)
        factor *= schedule.gamma**passed
    return factor


def _one_cycle(
    schedule: Schedule, step: int, steps: int, ends: tuple[float, float], middle: float
) -> float:
    """Follow two half cosines, as ``torch.optim.lr_scheduler.OneCycleLR`` does."""

    def half_cosine(start: float, end: float, progress: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    top, last = schedule.pct_start * steps - 1, steps - 1
    if step <= top:
        return half_cosine(ends[0], middle, step / top if top > 0 else 1.0)
    return half_cosine(middle, ends[1], (step - top) / (last - top))


def set_learning_rate(
    optimizer: torch.optim.Optimizer, settings: Settings, step: int, epoch_steps: int
) -> float:
    """Set the learning rates of a step (from 0), and the momentum if it is cycled.

    Unlike torch's schedulers, this has no state, and does not warn when the gradient scaler skips
    the first step. Returns the head's learning rate.
    """
    schedule, steps = settings.schedule, epoch_steps * settings.epochs
    factor = learning_rate_factor(schedule, step, epoch_steps, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    if schedule.name == "one_cycle" and schedule.cycle_momentum:
        high, low = MOMENTA
        momentum = _one_cycle(schedule, step, steps, (high, high), low)
        for group in optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
    return settings.optimizer.lr * factor


# ---------------------------------------------------------------------------------------------- SAM
# Sharpness-aware minimization. Foret et al., Sharpness-Aware Minimization for Efficiently Improving
# Generalization, ICLR 2021 (arXiv:2010.01412); its adaptive form, Kwon et al., ASAM, ICML 2021
# (arXiv:2102.11600).
#
# A step has two passes over one batch: the first, at the weights w, gives the gradient g; the
# second, at w + e, gives the gradient that the optimizer applies at w.
#
# * e is made from the gradient of the global batch, so the number of processes changes nothing.
# * e depends on the direction of g alone, so neither loss scaling nor clipping g would change it.
#   The gradient of the second pass is clipped.
# * If g overflows in half precision there is no second pass, and the step is skipped.
# * Dropout draws again in the second pass, and batch norms update their statistics in both, unless
#   ``sam_bn`` is ``first``.


@contextmanager
def sam_perturbation(
    parameters: Sequence[nn.Parameter], rho: float, adaptive: bool = False
) -> Iterator[None]:
    """Move parameters to w + e; restore w exactly at the end of the block.

    e = rho g / ||g|| (Foret et al., eq. 2), or rho w^2 g / || |w| g || if ``adaptive`` (Kwon et
    al., with T_w = |w|). Norms run over all parameters together; those without a gradient are not
    moved.
    """
    moved: list[Tensor] = [p for p in parameters if p.grad is not None]
    with restored(moved):
        if moved:
            _climb(moved, [p.grad for p in moved if p.grad is not None], rho, adaptive)
        yield


@torch.no_grad()
def _climb(moved: list[Tensor], gradients: list[Tensor], rho: float, adaptive: bool) -> None:
    """Move parameters by e; on CUDA a few kernels serve all of them."""
    steps: tuple[Tensor, ...] | list[Tensor] = gradients
    if adaptive:
        sizes = torch._foreach_abs(moved)
        steps = torch._foreach_mul(gradients, sizes)
    scale = rho / (nn.utils.get_total_norm(steps) + TINY)
    if adaptive:
        steps = torch._foreach_mul(steps, sizes)
    torch._foreach_add_(moved, torch._foreach_mul(steps, scale))


# ------------------------------------------------------------------------------------------ learner
class MovingAverage(nn.Module):
    """The exponential moving average of a model's weights and statistics.

    Integers are copied. Torch's own average rounds them, and waits for the device to read the
    number of updates.

    The average begins with the model's weights after the first step, which an overflow may skip.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self.settings, self.updates = settings, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the weights after a step."""
        old, new = ([*one.parameters(), *one.buffers()] for one in (self.module, model))
        for floating in (True, False):
            mine, theirs = (
                [x for x in one if x.is_floating_point() == floating] for one in (old, new)
            )
            if mine and floating and self.updates:
                torch._foreach_lerp_(mine, theirs, 1 - self.settings.decay_after(self.updates))
            elif mine:
                torch._foreach_copy_(mine, theirs)
        self.updates += 1

    def get_extra_state(self) -> Tensor:
        """The number of updates, for ``state_dict``."""
        return torch.tensor(self.updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of updates."""
        self.updates = int(state)


@dataclass
class Learner:
    """A model in training, and all state that an optimizer step changes."""

    model: MultiLabelModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: MovingAverage | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def backward(self, loss: Tensor, *, add: bool = False) -> None:
        """Replace the gradients by those of a loss, scaled in fp16, or ``add`` to them."""
        if not add:
            self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()

    def keep_gradients(self) -> None:
        """Copy the gradients out of the memory of a CUDA graph, which its next run overwrites."""
        for p in self.parameters:
            p.grad = None if p.grad is None else p.grad.clone()

    def overflowed(self) -> bool:
        """True if the gradients are not finite, so that the scaler will skip the step."""
        if not self.scaler.is_enabled():  # avoids waiting for the device
            return False
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return not nn.utils.get_total_norm(gradients).isfinite()

    def update(self, clip: float) -> Tensor:
        """Step the optimizer and the moving average; returns the gradient norm before clipping.

        ``clip`` is the largest global norm of the gradient; 0 does not clip.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, clip or float("inf"))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return norm


def make_learner(
    model: MultiLabelModel, settings: Settings, *, scaled: bool, averaged: bool
) -> Learner:
    """Make a learner of a model on its device; switch off the gradients of the frozen stages.

    ``scaled`` scales the loss, for fp16; ``averaged`` allows a moving average.
    """
    for stage in frozen_stages(model, settings):
        for part in stage:
            part.requires_grad_(False)
    return Learner(
        model=model,
        optimizer=make_optimizer(model, settings),
        scaler=torch.amp.GradScaler(model.mean.device.type, enabled=scaled),
        average=MovingAverage(model, settings) if averaged and settings.ema_decay else None,
    )
